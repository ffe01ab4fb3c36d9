// A socket in a guest whose connections are served here: the engine's own in a container, an ssh
// agent's in a build step. Takes one connection after the other over streams of
// guest::OpenStream::Kind::kConnection and hands them on. Owned by what the socket belongs to; has
// a thread of its own, on which `Connected` is called.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/fd.h"

namespace hull::engine {

class GuestSocket {
 public:
  // One more stream for the socket. Throws while there is none; it is tried again.
  using Open = std::function<Fd()>;
  // `place` is let go of when the connection has ended: it counts until then.
  using Connected = std::function<void(Fd connection, std::shared_ptr<void> place)>;
  struct Limit {
    size_t connections = 1;  // at a time; who is beyond is closed
    std::string refusal;     // … after having been told this
  };

  // `first` is a stream that was opened already, or none.
  GuestSocket(Fd first, Open open, Limit limit, Connected connected);
  // Takes no more; the connections there are go on. Waits for an open() that is under way.
  ~GuestSocket();
  GuestSocket(const GuestSocket&) = delete;
  GuestSocket& operator=(const GuestSocket&) = delete;

 private:
  struct Places;
  void takeAll(Fd stream);
  bool awaitConnection(const Fd& stream) const;
  bool pauseUnlessOver() const;
  void pass(Fd connection);
  void refuse(Fd connection);

  const Open open_;
  const Limit limit_;
  const Connected connected_;
  const std::shared_ptr<Places> places_;
  std::deque<Fd> refused_;  // the last of them; the thread's
  const Fd over_;           // eventfd, readable at the end
  std::thread thread_;
};

}  // namespace hull::engine
