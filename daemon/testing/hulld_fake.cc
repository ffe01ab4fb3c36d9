// hulld-fake ROOT SOCKET: the engine and its API over local_machine.h, for tests with real clients.
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "daemon/serve.h"
#include "daemon/testing/local_machine.h"

namespace {

// Builds do here what needs no machine.
class NoSteps final : public hull::build::StepRunner {
 public:
  std::unique_ptr<hull::build::StageSession> open(const std::vector<hull::image::Digest>&,
                                                  const hull::build::SessionOptions&) override {
    throw hull::Error(hull::ErrorKind::kNotSupported, "RUN needs a machine, and here is none");
  }
};

}  // namespace

int main(int argc, char** argv) {
  using namespace hull;
  if (argc < 3 || argc % 2 == 0) {
    std::cerr
        << "usage: hulld-fake ROOT SOCKET [--tcp ADDRESS] [--tls FOLDER] [--metrics ADDRESS]\n";
    return 2;
  }
  log::setPart("hulld-fake");
  try {
    engine::blockSignals();
    engine::testing::LocalHost host;
    engine::ServeOptions serve;
    serve.sockets = {argv[2]};
    for (int i = 3; i < argc; i += 2) {
      const std::string_view option = argv[i];
      if (option == "--tcp") serve.tcp_addresses.emplace_back(argv[i + 1]);
      if (option == "--tls") serve.tls_folder = argv[i + 1];
      if (option == "--metrics") serve.metrics_address = argv[i + 1];
    }
    engine::serve(serve, [&](const std::vector<std::string>& sockets) {
      engine::EngineOptions options;
      options.sockets = sockets;
      options.root = argv[1];
      engine::EngineLock lock(options.root);
      engine::EngineParts parts;
      engine::useRealParts(parts);
      host.usedBy(parts);
      parts.step_runner = std::make_shared<NoSteps>();
      parts.network = engine::testing::makeLocalNetwork();
      parts.images = std::make_shared<image::ImageStore>(options.root);
      if (parts.images->list().empty()) engine::testing::addTestImages(*parts.images);
      return std::make_unique<engine::Engine>(std::move(lock), std::move(parts), options);
    });
    return 0;
  } catch (const std::exception& error) {
    log::error(error.what());
    return 1;
  }
}
