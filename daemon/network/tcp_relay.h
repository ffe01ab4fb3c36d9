// Accepts TCP connections and relays each to a target, with half-close both ways and a bounded
// buffer each way: a slow receiver slows its sender, and nobody else. Made, used and destroyed on
// the thread of its event loop.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/socket_address.h"

namespace hull::engine {

struct RelayLimits {
  size_t connections = 2048;  // more wait in the listener's backlog
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(20);
  std::chrono::milliseconds lifetime{0};  // of a connection; 0: unlimited
};

class TcpRelay {
 public:
  // The target of the n-th try (from 0) for one connection; nullopt gives up and closes it.
  using TargetFunction = std::function<std::optional<SocketAddress>(size_t attempt)>;

  TcpRelay(EventLoop& loop, Fd listener, TargetFunction target, RelayLimits limits = {});
  ~TcpRelay();
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  size_t connections() const { return connections_.size(); }

 private:
  class Connection;
  void acceptAll();
  void listenAgain();
  void pauseListening();
  void remove(Connection* connection);

  EventLoop& loop_;
  const Fd listener_;
  const TargetFunction target_;
  const RelayLimits limits_;
  bool listening_ = false;
  std::optional<EventLoop::TimerId> retry_;
  std::list<std::unique_ptr<Connection>> connections_;
};

// A listening socket, not blocking. Throws kConflict when the address is taken.
Fd listenTcp(const SocketAddress& address);

}  // namespace hull::engine
