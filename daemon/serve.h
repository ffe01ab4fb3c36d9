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
  std::vector<std::string> sockets;  // empty, and none from systemd: engineSocket()
  // TCP addresses "host:port", only with mutual TLS: the folder of ca.pem, cert.pem and key.pem.
  std::vector<std::string> tcp_addresses;
  std::string tls_folder;
  std::string metrics_address;  // "host:port" of GET /metrics, plain HTTP; empty: none
  std::string group;            // owner group of the sockets; empty: for root "hull" or "docker"
};

// Blocks SIGTERM, SIGINT and SIGHUP for the process; before any thread is started.
void blockSignals();

// Binds the sockets, makes the engine, answers until SIGTERM or SIGINT, and puts everything away.
// Containers run on unless the options say otherwise.
void serve(const ServeOptions& options, const std::function<std::unique_ptr<Engine>()>& make);

}  // namespace hull::engine
