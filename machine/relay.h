// Joins a socket with a stream of the mux, both ways, until both are done: half-closes travel on,
// a peer that is gone altogether is reported as gone (the other end sees a close, not only an end
// of input), and neither side gets ahead of the other by more than a window. Lives by itself on the
// mux's event loop; nobody needs to hold it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "machine/mux.h"

namespace hull::machine {

class Relay final : public StreamEvents, public std::enable_shared_from_this<Relay> {
 public:
  // Opens a stream to `target` for `socket` (non-blocking from here on). `first` was read from the
  // socket already. False: too many streams; the socket is closed.
  static bool open(EventLoop& loop, Mux& mux, std::string_view target, Fd socket,
                   std::string_view first = {});
  // Serves `stream`, opened by the peer, with `socket`, which may still be connecting. Returned to
  // the mux by an acceptor.
  static std::shared_ptr<StreamEvents> accept(EventLoop& loop, Mux& mux, uint32_t stream,
                                              Fd socket);

  Relay(EventLoop& loop, Mux& mux, Fd socket);  // use the functions above

  void onData(std::string_view bytes) override;
  void onFin() override;
  void onClosed(bool orderly) override;
  void onWritable() override;

 private:
  void watch();
  void unwatch();
  void update();
  void onSocket(uint32_t events);
  void readSocket(bool hung_up);
  bool flush();
  void abandon();  // the socket failed: reset the stream
  void finish();   // nothing more to do on either side

  EventLoop& loop_;
  Mux& mux_;
  Fd socket_;
  uint32_t stream_ = 0;
  std::string pending_;  // from the stream, for the socket; at most a window
  size_t pending_begin_ = 0;
  std::string first_;  // from the socket, read before the relay began
  bool watched_ = false;
  uint32_t interest_ = 0;
  bool input_ended_ = false;   // the socket gave end of file
  bool output_ended_ = false;  // the stream gave fin
  bool shut_ = false;          // and the socket was told
  bool stream_gone_ = false;   // closed by the peer: flush, then close the socket
};

}  // namespace hull::machine
