// Many byte streams over one: the channel between the supervisor and the agent. Each stream has a
// window per direction, so a reader that is slow holds up nobody else, and memory is bounded by
// kMaxStreams windows. Half-close and full close are told apart, because `docker run -i` needs the
// one and an engine that watches for vanished clients the other.
//
// What a stream reaches is named when it is opened (the opener's side decides who serves it):
//   host → machine   "unix:/run/hull/hulld.sock"  "tcp:127.0.0.1:8080"  "exec:{…}" (exec.h)
//                    "udp:127.0.0.1:5353" (datagrams.h)  "clock:<seconds>.<nanoseconds>"  "poweroff"
//   machine → host   "hello:{…}" (the agent is up)  "publish" (ports.h)
//
// One event loop, one thread. A Mux outlives its streams' handlers only in that it drops them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "machine/frame.h"

namespace hull::machine {

inline constexpr uint32_t kStreamWindowBytes = 512 * 1024;
inline constexpr size_t kMaxStreams = 4096;

// What happens to one stream. The mux holds a reference until the stream is over.
class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  virtual void onData(std::string_view bytes) = 0;  // give back with Mux::consumed
  virtual void onFin() = 0;                         // the peer writes no more
  // The stream is over: the peer closed it (orderly: everything it sent has arrived), reset it, or
  // the channel broke. Not called after one's own close() or reset(), nor when both sides have
  // said fin.
  virtual void onClosed(bool orderly) = 0;
  virtual void onWritable() = 0;  // room() may have grown from 0
};

class Mux {
 public:
  enum class Side { kHost, kMachine };
  // Serves a stream the peer opened; null refuses it.
  using Acceptor =
      std::function<std::shared_ptr<StreamEvents>(uint32_t stream, std::string_view target)>;
  using Broken = std::function<void(const std::string& reason)>;

  // `channel`: read and written, non-blocking from here on. `broken` is called once, last.
  Mux(EventLoop& loop, Fd channel, Side side, Acceptor acceptor, Broken broken);
  ~Mux();
  Mux(const Mux&) = delete;
  Mux& operator=(const Mux&) = delete;

  // 0 when there are too many streams or the channel is broken; `events` is not kept then.
  uint32_t open(std::string_view target, std::shared_ptr<StreamEvents> events);
  size_t room(uint32_t stream) const;                  // bytes send() takes now
  void send(uint32_t stream, std::string_view bytes);  // at most room(); the rest is a bug
  void consumed(uint32_t stream, size_t bytes);
  void fin(uint32_t stream);
  void close(uint32_t stream);
  void reset(uint32_t stream);
  size_t streams() const { return streams_.size(); }

 private:
  struct Stream {
    std::shared_ptr<StreamEvents> events;
    uint32_t send_window = kStreamWindowBytes;     // what the peer can still take
    uint32_t receive_window = kStreamWindowBytes;  // what we have allowed the peer
    uint32_t unreported = 0;                       // consumed, not yet told to the peer
    bool fin_sent = false;
    bool fin_received = false;
    mutable bool waiting = false;  // asked for room and got none
  };

  void onChannel(uint32_t events);
  void readChannel();
  bool writeChannel();
  void updateInterest();
  void handle(const Frame& frame);
  void handleOpen(const Frame& frame);
  void handleData(const Frame& frame);
  void handleEnd(const Frame& frame);
  void grant(uint32_t id, Stream& stream);
  void wakeWaiting();
  void finishIfDone(uint32_t id);
  void breakChannel(const std::string& reason);
  size_t queued() const { return output_.size() - output_begin_; }

  EventLoop& loop_;
  Fd channel_;
  Side side_;
  Acceptor acceptor_;
  Broken broken_;
  FrameParser parser_;
  std::unordered_map<uint32_t, Stream> streams_;
  uint32_t next_stream_;
  std::string output_;
  size_t output_begin_ = 0;
  mutable bool starved_ = false;  // some stream found the output full
  uint32_t interest_ = 0;
};

}  // namespace hull::machine
