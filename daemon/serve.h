// From an engine to a program: the sockets it listens on, signals, and the end. Used by main of
// hulld and of its stand-in for tests; main thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "daemon/api/http_server.h"
#include "daemon/engine/engine.h"

namespace hull::engine {

struct ServeOptions {
  std::vector<std::string> sockets;      // empty, and none from systemd: engineSocket()
  std::vector<std::string> other_names;  // paths at which clients reach these sockets, elsewhere
  // TCP addresses "host:port", only with mutual TLS: the folder of ca.pem, cert.pem and key.pem.
  std::vector<std::string> tcp_addresses;
  std::string tls_folder;
  std::string metrics_address;  // "host:port" of GET /metrics, plain HTTP; empty: none
  std::string group;            // owner group of the sockets; empty: for root "hull" or "docker"
};

// Blocks SIGTERM, SIGINT and SIGHUP for the process; before any thread is started.
void blockSignals();

// Makes the engine, binds the sockets, answers until SIGTERM or SIGINT, and puts everything away.
// Containers run on unless the options say otherwise. `make` is told the paths of the sockets.
using MakeEngine = std::function<std::unique_ptr<Engine>(const std::vector<std::string>& sockets)>;
void serve(const ServeOptions& options, const MakeEngine& make);

}  // namespace hull::engine
