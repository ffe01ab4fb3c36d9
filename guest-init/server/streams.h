// Connections on the stream port: first the one frame that says what they are for, then the
// standard streams of a process. The event loop's thread. A connection that is done says so to
// its owner, who destroys it (never inside one of its own handlers: StreamSet posts that).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "guest-init/process/channels.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

inline constexpr size_t kMaxStreams = 4096;

class Stream {
 public:
  virtual ~Stream() = default;
};
using StreamDone = std::function<void()>;

// Owns the connections.
class StreamSet {
 public:
  explicit StreamSet(EventLoop& loop) : loop_(loop) {}
  bool full() const { return streams_.size() >= kMaxStreams; }
  // make(done) builds the stream; done() ends it soon.
  void add(const std::function<std::unique_ptr<Stream>(StreamDone)>& make);

 private:
  EventLoop& loop_;
  uint64_t next_ = 1;
  std::map<uint64_t, std::unique_ptr<Stream>> streams_;
};

// Reads exactly one OpenStream frame, not a byte more, then gives the socket away.
class OpeningStream final : public Stream {
 public:
  using Opened = std::function<void(Fd socket, Frame frame)>;
  OpeningStream(EventLoop& loop, Fd socket, Opened opened, StreamDone done);
  ~OpeningStream() override;

 private:
  bool receive();

  EventLoop& loop_;
  Fd socket_;
  Opened opened_;
  StreamDone done_;
  std::string input_;
};

class OutputStream final : public Stream {
 public:
  OutputStream(EventLoop& loop, Fd socket, std::shared_ptr<OutputChannel> channel, uint64_t offset,
               StreamDone done);
  ~OutputStream() override;

 private:
  void ready(uint32_t events);
  bool receiveAcknowledgements();
  void push();
  void finish();

  EventLoop& loop_;
  Fd socket_;
  std::shared_ptr<OutputChannel> channel_;
  uint64_t sent_;  // total, as in RetainedOutput
  StreamDone done_;
  std::string acknowledgement_;  // a u64 that has come in part
  bool end_sent_ = false;
  bool finished_ = false;
};

class InputStream final : public Stream {
 public:
  InputStream(EventLoop& loop, Fd socket, std::shared_ptr<InputChannel> channel, StreamDone done);
  ~InputStream() override;

 private:
  void ready();
  void changed();
  void finish();

  EventLoop& loop_;
  Fd socket_;
  std::shared_ptr<InputChannel> channel_;
  StreamDone done_;
  bool ended_ = false;
  bool finished_ = false;
};

}  // namespace hull::guest
