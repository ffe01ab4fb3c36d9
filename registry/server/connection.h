// HTTP/1.1 on one accepted connection: requests one after another until either side closes.
// Boost.Beast parses headers and chunked bodies and stays in the .cc. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "registry/server/message.h"
#include "registry/server/transport.h"

namespace hull::registry {

inline constexpr uint32_t kMaxRequestHeaderBytes = 64 << 10;
inline constexpr std::chrono::seconds kIdleLimit{60};    // between requests, and in every wait
inline constexpr std::chrono::seconds kHeaderLimit{30};  // from a request's first byte

struct Peer {
  std::string address;  // "127.0.0.1:40000"; "local" on a unix socket
  bool tls = false;
};

// One request and its answer, when both are over: for the log and the metrics.
struct Exchange {
  const Request& request;
  const Response& response;
  uint64_t received = 0;  // bytes of bodies
  uint64_t sent = 0;
  std::chrono::steady_clock::duration took{};
  std::string failure;  // why sending ended early
};

using Handler = std::function<Response(Request&)>;
using Finished = std::function<void(const Exchange&)>;

// Returns when the connection is over.
void serveConnection(Transport& transport, const Peer& peer, const Handler& handler,
                     const Finished& finished);

}  // namespace hull::registry
