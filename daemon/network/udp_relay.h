// Relays datagrams that arrive at one socket to a target, and its answers back to whoever sent:
// for each sender a socket of its own, so that answers find their way, forgotten when idle. Made,
// used and destroyed on the thread of its event loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "daemon/network/socket_address.h"

namespace hull::engine {

struct UdpRelayLimits {
  size_t flows = 1024;  // senders at a time; the one idle longest makes place for a new one
  std::chrono::milliseconds idle = std::chrono::seconds(90);
};

class UdpRelay {
 public:
  UdpRelay(EventLoop& loop, Fd socket, const SocketAddress& target, UdpRelayLimits limits = {});
  ~UdpRelay();
  UdpRelay(const UdpRelay&) = delete;
  UdpRelay& operator=(const UdpRelay&) = delete;

  size_t flows() const { return flows_.size(); }

 private:
  struct Flow {
    std::string key;  // the sender's address
    SocketAddress sender;
    Fd socket;  // connected to the target
    std::chrono::steady_clock::time_point used;
  };
  using Flows = std::list<Flow>;  // used longest ago first

  void takeDatagrams();
  Flow* flowOf(const SocketAddress& sender);
  void takeAnswers(Flow& flow);
  void touch(Flows::iterator flow);
  void drop(Flows::iterator flow);
  void sweep();

  EventLoop& loop_;
  const Fd socket_;
  const SocketAddress target_;
  const UdpRelayLimits limits_;
  Flows flows_;
  std::map<std::string, Flows::iterator> by_sender_;
  std::optional<EventLoop::TimerId> sweeper_;
};

// Bound, not blocking. Throws kConflict when the address is taken.
Fd bindUdp(const SocketAddress& address);

}  // namespace hull::engine
