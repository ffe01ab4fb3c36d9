// hull-registry's server: everything that serving a folder takes, put together. The constructor
// returns once it listens; the destructor ends all connections and waits for their threads. Any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "registry/server/configuration.h"

namespace hull::registry {

// Where a running server takes orders from `hull-registry gc`, in its root.
inline constexpr const char* kControlSocket = ".control";

class Server {
 public:
  // `config_file`, when there is one, is applied over `options`, now and at each reload().
  explicit Server(const ServerOptions& options, const std::string& config_file = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  std::string address() const;         // "127.0.0.1:5000", with the real port
  std::string metricsAddress() const;  // "" when there is none
  const std::string& root() const;
  bool tls() const;

  // Reads the configuration, certificates, passwords and keys again and opens the access log anew.
  // What is wrong with them is logged, and the old ones stay. Happens by itself when a file
  // changes.
  void reload();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::registry
