// hull-registry: an OCI Distribution server on a folder, and what its keeper needs.
#include <malloc.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "registry/server/commands.h"
#include "registry/server/server.h"

namespace {

using hull::registry::ServerOptions;

struct ServeOptions {
  ServerOptions server;
  std::string config;
  bool no_delete = false;
  bool tokens = false;
  std::string max_blob;
};

int serve(ServeOptions options) {
  ServerOptions& server_options = options.server;
  server_options.policy.allow_delete = !options.no_delete;
  server_options.policy.access.tokens = options.tokens;
  if (!options.max_blob.empty()) {
    server_options.policy.max_blob_bytes =
        hull::registry::parseBytes(options.max_blob, "--max-blob");
  }
  // One heap for all threads: each connection has a thread, and a heap of its own for each would
  // hold on to what it once needed.
  ::mallopt(M_ARENA_MAX, 2);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: all inherit it
  hull::registry::Server server(server_options, options.config);
  if (!server.metricsAddress().empty()) {
    hull::log::info("metrics at http://" + server.metricsAddress() + "/metrics");
  }
  hull::log::info("listening on " + std::string(server.tls() ? "https" : "http") + "://" +
                  server.address() + ", storing in " + server.root());
  int number = 0;
  while (sigwait(&signals, &number) == 0 && number == SIGHUP) server.reload();
  hull::log::info("stopping");
  return 0;
}

void addServeOptions(CLI::App& app, ServeOptions& options) {
  ServerOptions& server = options.server;
  auto& access = server.policy.access;
  app.add_option("--config", options.config,
                 "JSON file with what else there is to say (docs/registry.md); wins over options");
  app.add_option("--listen", server.listen, "Address and port to listen on; port 0: any free one")
      ->capture_default_str();
  app.add_option("--metrics-listen", server.metrics_listen,
                 "Address and port for /metrics and /healthz");
  app.add_option("--root", server.root, "Folder that holds everything; made when missing");
  app.add_option("--tls-cert", server.tls_certificate, "Certificate chain (PEM): serve HTTPS");
  app.add_option("--tls-key", server.tls_key, "Private key of the certificate (PEM)");
  app.add_option("--htpasswd", access.htpasswd, "Users and bcrypt passwords");
  app.add_flag("--tokens", options.tokens, "Clients get tokens, at /token, for their passwords");
  app.add_flag("--anonymous-pull", access.anonymous_pull, "Everybody may pull (implies --tokens)");
  app.add_flag("--read-only", server.policy.read_only, "Refuse pushes and deletions");
  app.add_flag("--no-delete", options.no_delete, "Refuse deletions");
  app.add_option("--cache", server.cache.upstream,
                 "Be a pull-through cache of this registry (docker.io, https://host)");
  app.add_option("--access-log", server.access_log,
                 "File for the access log, - for standard output, none");
  app.add_option("--max-blob", options.max_blob, "Largest blob, as in 20GiB");
}

}  // namespace

int main(int argc, char** argv) {
  hull::log::setPart("hull-registry");
  CLI::App app("An OCI Distribution registry on a folder", "hull-registry");
  app.set_version_flag("--version,-v", std::string("hull-registry ") + HULL_VERSION);
  app.require_subcommand(0, 1);
  int status = 0;

  ServeOptions options;
  addServeOptions(app, options);  // `hull-registry --root X` serves
  ServeOptions serve_options;
  auto* serve_command = app.add_subcommand("serve", "Serve a folder");
  addServeOptions(*serve_command, serve_options);
  hull::registry::addMaintenanceCommands(app, status);

  CLI11_PARSE(app, argc, argv);
  try {
    if (serve_command->parsed()) {
      if (serve_options.server.policy.access.anonymous_pull) serve_options.tokens = true;
      return serve(serve_options);
    }
    if (!app.get_subcommands().empty()) return status;
    if (options.server.root.empty() && options.config.empty()) {
      std::cerr << "hull-registry: what to do? hull-registry serve --root FOLDER serves it "
                   "(--help lists the rest)\n";
      return 2;
    }
    if (options.server.policy.access.anonymous_pull) options.tokens = true;
    return serve(options);
  } catch (const std::exception& error) {
    std::cerr << "hull-registry: " << error.what() << "\n";
    return hull::registry::exitStatus(error);
  }
}
