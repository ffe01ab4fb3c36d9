// Moving trees in and out as chunked tar streams. Each transfer runs in a child process of its own
// that owns the connection meanwhile: it may block, walk hostile trees and enter containers
// without holding up or endangering PID 1. The parent side belongs to the event loop's thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/stream.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

class Transfer {
 public:
  // In the child. The work calls ready() when nothing but the data can fail any more; that sends
  // the Ok frame. What it throws before becomes the Failure frame, later the stream's end.
  using Ready = std::function<void()>;
  using ReadWork = std::function<void(Sink& chunks, const Ready& ready)>;
  using WriteWork = std::function<void(Source& chunks, const Ready& ready)>;

  // `request` is the frame that opened the stream. Guest → host: the child also sends the end with
  // what went wrong.
  static std::unique_ptr<Transfer> read(const Frame& request, Fd socket, const ReadWork& work);
  // Host → guest: the parent sends the end once the child is reaped (finish()), because by then
  // the result must be visible to the next request.
  static std::unique_ptr<Transfer> write(const Frame& request, Fd socket, const WriteWork& work,
                                         std::function<std::string(std::string error)> conclude);
  ~Transfer();  // kills a child that was not reaped

  pid_t pid() const { return pid_; }
  const std::string& container() const { return container_; }
  bool writesLayer() const { return writes_layer_; }  // nothing may run meanwhile
  // A read that has sent everything but its end: its child is about to exit.
  bool ending() const;
  void finish(int wait_status);  // the child was reaped

 private:
  Transfer(const Frame& request, Fd socket);
  template <typename Child>
  void fork(const Child& child);

  std::string container_;
  Fd socket_;
  Fd result_;  // the child's error text
  pid_t pid_ = -1;
  bool writes_layer_;
  bool answers_ = false;
  std::function<std::string(std::string)> conclude_;
};

}  // namespace hull::guest
