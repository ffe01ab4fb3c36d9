// Ports published on the outer host when the engine runs inside `hull machine`: the machine's port
// relay listens on a unix socket, takes one JSON line per connection
//   {"publish":{"address":"0.0.0.0","port":8080,"protocol":"tcp","target":"127.0.0.1:49153"}}
// answers {"ok":true,"port":8080} or {"error":"…"}, and keeps the port for as long as the
// connection is open. Blocks; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"

namespace hull::engine {

struct HostPort {
  Fd connection;  // closing it gives the port back
  uint16_t port = 0;
};

// `protocol`: tcp or udp. kConflict when the port is taken.
HostPort publishOnHost(const std::string& socket_path, const std::string& address, uint16_t port,
                       const std::string& protocol, uint16_t target_port);

}  // namespace hull::engine
