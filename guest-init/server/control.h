// The control connection: frames in, frames out. Bounded both ways: a peer that sends what does
// not decode, or does not read what it asked for, is disconnected. The event loop's thread.
#pragma once

#include <functional>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

inline constexpr size_t kMaxQueuedReplyBytes = 16 << 20;

class ControlConnection {
 public:
  using Handler = std::function<void(Frame)>;

  // `closed` is called once, when the connection is of no more use; destroy it then or later.
  ControlConnection(EventLoop& loop, Fd socket, Handler handler, std::function<void()> closed);
  ~ControlConnection();
  ControlConnection(const ControlConnection&) = delete;
  ControlConnection& operator=(const ControlConnection&) = delete;

  void send(const Frame& frame);
  void flushBlocking();  // before the VM ends

 private:
  void ready(uint32_t events);
  bool receive();
  bool takeFrames();
  bool flush();
  void fail();

  EventLoop& loop_;
  Fd socket_;
  Handler handler_;
  std::function<void()> closed_;
  std::string input_;
  std::string output_;
  bool failed_ = false;
};

}  // namespace hull::guest
