// Two stream sockets that are one connection: what comes in at one goes out at the other, both
// ways, an end of input as an end of input, the end of everything as such. A side that takes
// nothing stops the other from being read (at most kJoinedBufferBytes are held for it) and disturbs
// nobody else. A side that takes no more (its peer has closed, or reads no more) still gives what
// it has to say. Made, used and destroyed on the thread of its event loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"

namespace hull {

inline constexpr size_t kJoinedBufferBytes = 64 * 1024;  // per direction

class JoinedSockets {
 public:
  // Both connected; not blocking from here on. `done` is called once, from the loop, when both are
  // of no more use; it may destroy this.
  JoinedSockets(EventLoop& loop, Fd first, Fd second, std::function<void()> done);
  ~JoinedSockets();
  JoinedSockets(const JoinedSockets&) = delete;
  JoinedSockets& operator=(const JoinedSockets&) = delete;

 private:
  struct Side {
    Fd fd;
    uint32_t watched = 0;
    bool ended = false;      // nothing more is read here
    bool told = false;       // … and the other side knows
    bool gone = false;       // it takes nothing more, and epoll would say so for ever
    std::vector<char> held;  // read here, not taken by the other side yet
    size_t taken = 0;        // of it
  };

  void service(Side& side, uint32_t events);
  void move(Side& from, Side& to);
  bool receive(Side& from, Side& to);
  static size_t give(Side& from, const Side& to, std::string_view bytes);
  bool over() const;
  void watch(Side& side, const Side& other);

  EventLoop& loop_;
  std::array<Side, 2> sides_;
  std::function<void()> done_;
  bool broken_ = false;
};

}  // namespace hull
