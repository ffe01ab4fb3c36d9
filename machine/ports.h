// Ports of the user's host published for the engine in the machine. A connection to the agent's
// /run/hull/ports.sock becomes a stream "publish"; on it comes one JSON line
//   {"publish":{"address":"0.0.0.0","port":8080,"protocol":"tcp","target":"127.0.0.1:49153"}}
// answered with {"ok":true,"port":8080} or {"error":"bind 0.0.0.0:8080: Address already in use"}.
// The port stays as long as the stream; each connection to it, and with "protocol":"udp" each
// sender's datagrams, are relayed to `target` inside the machine. Port 0 takes any free one. One
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "machine/mux.h"

namespace hull::machine {

inline constexpr size_t kMaxPublishRequestBytes = 4096;

struct PublishRequest {
  std::string address;  // of the host; IPv4 or IPv6
  uint16_t port = 0;
  bool udp = false;    // otherwise TCP
  std::string target;  // inside the machine
};
PublishRequest parsePublishRequest(std::string_view line);  // throws kInvalidArgument

// A listening TCP or a bound UDP socket, and the port it got. Throws "bind ADDRESS:PORT: cause".
struct BoundPort {
  Fd socket;
  uint16_t port = 0;
};
BoundPort bindPort(const PublishRequest& request);

// Serves a "publish" stream.
std::shared_ptr<StreamEvents> servePublish(EventLoop& loop, Mux& mux, uint32_t stream);

}  // namespace hull::machine
