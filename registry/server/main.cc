// hull-registry: an OCI Distribution server on a folder.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "registry/server/server.h"

namespace {

int run(const hull::registry::ServerOptions& options) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);  // before any thread: all inherit it
  const hull::registry::Server server(options);
  hull::log::info("listening on " +
                  std::string(options.tls_certificate.empty() ? "http" : "https") + "://" +
                  server.address() + ", storing in " + options.root);
  int signal_number = 0;
  sigwait(&stop, &signal_number);
  hull::log::info("stopping");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  hull::log::setPart("hull-registry");
  hull::registry::ServerOptions options;
  CLI::App app("An OCI Distribution registry on a folder", "hull-registry");
  app.add_option("--listen", options.listen, "Address and port to listen on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--root", options.root, "Folder that holds everything; made when missing")
      ->required();
  app.add_option("--tls-cert", options.tls_certificate, "Certificate chain (PEM): serve HTTPS");
  app.add_option("--tls-key", options.tls_key, "Private key of the certificate (PEM)");
  app.add_option("--htpasswd", options.htpasswd, "Users and bcrypt passwords (htpasswd -B)");
  app.add_flag("--read-only", options.read_only, "Refuse pushes and deletions");
  bool no_delete = false;
  app.add_flag("--no-delete", no_delete, "Refuse deletions");
  CLI11_PARSE(app, argc, argv);
  options.allow_delete = !no_delete;
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::cerr << "hull-registry: " << error.what() << "\n";
    return 1;
  }
}
