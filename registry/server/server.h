// hull-registry's server: accepts connections, one thread each, within limits. start() returns once
// it listens; the destructor ends all connections and waits for their threads. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace hull::registry {

inline constexpr size_t kMaxConnections = 512;

struct ServerOptions {
  std::string listen = "127.0.0.1:5000";  // address:port; [v6]:port; port 0: any free one
  std::string root;
  std::string tls_certificate;  // PEM files; both or none
  std::string tls_key;
  std::string htpasswd;  // file; empty: no authentication
  bool read_only = false;
  bool allow_delete = true;
};

class Server {
 public:
  explicit Server(const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  std::string address() const;  // "127.0.0.1:5000", with the real port

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::registry
