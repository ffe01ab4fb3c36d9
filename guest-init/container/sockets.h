// Unix sockets in the guest whose connections are the host's to serve
// (OpenStream::Kind::kConnection): the engine's own in a container that was given it, an ssh
// agent's in a build step. A socket listens for as long as its container lives, whoever serves it:
// who connects while nobody does waits in its backlog. The event loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"

namespace hull::guest {

inline constexpr size_t kMaxSockets = 64;  // of a container

class ListeningSocket {
 public:
  // The next connection; or none, when there will be no more.
  using Taker = std::function<void(Fd connection)>;

  ListeningSocket(EventLoop& loop, const std::string& path);
  ~ListeningSocket();  // tells who waits
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;

  // `taker` is called once, unless it gives up before. Who came last is served first: whoever waits
  // longer may be an engine that was killed, and its end not known yet.
  uint64_t await(Taker taker);
  void giveUp(uint64_t ticket);

 private:
  void ready();
  void watch();

  EventLoop& loop_;
  Fd listener_;
  uint64_t next_ticket_ = 1;
  std::map<uint64_t, Taker> waiting_;
};

// Those of one container, by name.
class Sockets {
 public:
  Sockets(EventLoop& loop, std::string folder) : loop_(loop), folder_(std::move(folder)) {}

  // Made when it is new. Throws kInvalidArgument for what is no plain name, kTooLarge.
  ListeningSocket& get(const std::string& name);

 private:
  EventLoop& loop_;
  const std::string folder_;
  std::map<std::string, std::unique_ptr<ListeningSocket>> sockets_;
};

}  // namespace hull::guest
