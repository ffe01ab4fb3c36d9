// HTTP/1.1 on one accepted connection: requests one after another until either side closes.
// Boost.Beast parses headers and chunked bodies and stays in the .cc. One thread.
#pragma once

#include <functional>
#include <string>

#include "registry/server/message.h"
#include "registry/server/transport.h"

namespace hull::registry {

inline constexpr uint32_t kMaxRequestHeaderBytes = 64 << 10;
inline constexpr std::chrono::seconds kIdleLimit{60};    // between requests, and in every wait
inline constexpr std::chrono::seconds kHeaderLimit{30};  // from a request's first byte

using Handler = std::function<Response(Request&)>;

// Returns when the connection is over. `peer` is for the log.
void serveConnection(Transport& transport, const std::string& peer, const Handler& handler);

}  // namespace hull::registry
