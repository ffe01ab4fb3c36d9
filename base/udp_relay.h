// Relays datagrams that arrive at one socket, and the answers back to whoever sent: each sender has
// a conversation of its own, forgotten when idle. Where a conversation leads is its maker's affair:
// a socket connected to a target (converseWith), or whatever carries datagrams elsewhere. Made,
// used and destroyed on the thread of its event loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/socket_address.h"

namespace hull {

inline constexpr size_t kMaxDatagramBytes = 65535;

struct UdpRelayLimits {
  size_t flows = 1024;  // senders at a time; the one idle longest makes place for a new one
  std::chrono::milliseconds idle = std::chrono::seconds(90);
};

class UdpRelay {
 public:
  // What one sender's datagrams go to. Destroying it ends it; no answer comes afterwards.
  class Conversation {
   public:
    virtual ~Conversation() = default;
    // A datagram that cannot be taken now is lost, like any. False: this conversation is over.
    virtual bool send(std::string_view datagram) = 0;
  };
  using Answer = std::function<void(std::string_view datagram)>;
  // Null: there can be none now, and the datagram is lost.
  using Open = std::function<std::unique_ptr<Conversation>(Answer answer)>;

  UdpRelay(EventLoop& loop, Fd socket, Open open, UdpRelayLimits limits = {});
  ~UdpRelay();
  UdpRelay(const UdpRelay&) = delete;
  UdpRelay& operator=(const UdpRelay&) = delete;

  size_t flows() const { return flows_.size(); }

 private:
  struct Flow {
    std::string key;  // the sender's address
    SocketAddress sender;
    std::unique_ptr<Conversation> conversation;
    std::chrono::steady_clock::time_point used;
  };
  using Flows = std::list<Flow>;  // used longest ago first

  void takeDatagrams();
  Flows::iterator flowOf(const SocketAddress& sender);  // end(): there can be none now
  void answer(Flows::iterator flow, std::string_view datagram);
  void touch(Flows::iterator flow);
  void drop(Flows::iterator flow);
  void sweep();

  EventLoop& loop_;
  const Fd socket_;
  const Open open_;
  const UdpRelayLimits limits_;
  Flows flows_;
  std::map<std::string, Flows::iterator> by_sender_;
  std::optional<EventLoop::TimerId> sweeper_;
};

// Bound, not blocking. Throws kConflict when the address is taken.
Fd bindUdp(const SocketAddress& address);

// A conversation over a socket of its own, connected to `target`; null when there can be none.
std::unique_ptr<UdpRelay::Conversation> converseWith(EventLoop& loop, const SocketAddress& target,
                                                     UdpRelay::Answer answer);

}  // namespace hull
