// The two directions of a process's standard streams, on the event loop. Channels outlive the
// connections that feed or read them, and connections may outlive the process: both hold them by
// shared_ptr. The event loop's thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/fd.h"
#include "guest-init/process/output.h"

namespace hull::guest {

// What a process writes: read as long as there is room, kept until acknowledged.
class OutputChannel {
 public:
  // Without a source the output has ended already, unless one is `expected` (setSource).
  OutputChannel(EventLoop& loop, Fd source, bool expected = false);
  ~OutputChannel() { close(); }
  OutputChannel(const OutputChannel&) = delete;
  OutputChannel& operator=(const OutputChannel&) = delete;

  void setSource(Fd source);  // once, for a terminal that comes later
  const RetainedOutput& retained() const { return retained_; }
  bool ended() const { return ended_; }          // all writers have closed; nothing will follow
  bool abandoned() const { return abandoned_; }  // forgotten by the host
  bool acknowledge(uint64_t total);              // false: a total that was never reached
  void abandon();
  void endIfSourceless();  // the process died before its terminal came

  // Called after anything changed; one reader at a time, the latest wins and the former is told
  // by its own callback that `reader` is no longer it.
  void setReader(const void* reader, std::function<void()> changed);
  void clearReader(const void* reader);
  const void* reader() const { return reader_; }

 private:
  void readSource();
  void watch();
  void close();
  void notify();

  EventLoop& loop_;
  Fd source_;
  RetainedOutput retained_;
  bool ended_ = false;
  bool abandoned_ = false;
  const void* reader_ = nullptr;
  std::function<void()> changed_;
};

// What a process reads: what did not fit into its pipe waits here, at most kMaxPendingInputBytes.
class InputChannel {
 public:
  InputChannel(EventLoop& loop, Fd sink, bool terminal);  // an invalid sink is closed already
  ~InputChannel() { close(); }
  InputChannel(const InputChannel&) = delete;
  InputChannel& operator=(const InputChannel&) = delete;

  void setSink(Fd sink);  // once, for a terminal that comes later
  bool closed() const { return closed_; }
  bool idle() const { return pending_.empty(); }  // ready for more
  void write(std::string_view bytes);             // only while idle
  // The end of input, after what is pending. A terminal has none: its line goes on.
  void finish();

  void setWriter(const void* writer, std::function<void()> changed);
  void clearWriter(const void* writer);
  const void* writer() const { return writer_; }
  void close();

 private:
  void flush();
  void notify();

  EventLoop& loop_;
  Fd sink_;
  std::string pending_;
  bool terminal_;
  bool finishing_ = false;
  bool closed_ = false;
  const void* writer_ = nullptr;
  std::function<void()> changed_;
};

}  // namespace hull::guest
