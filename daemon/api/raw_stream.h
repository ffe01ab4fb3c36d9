// Attached processes over taken-over connections: what a process writes goes to the client, framed
// as Docker frames it ([stream, 0, 0, 0, big-endian size] and the data) unless it has a terminal;
// what the client writes goes to the process. Used by one connection's thread, which owns it; input
// has a thread of its own.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/detach_keys.h"
#include "base/fd.h"
#include "base/stream.h"
#include "daemon/api/http.h"
#include "daemon/vm/process_output.h"

namespace hull::engine::api {

const char* rawStreamType(const Request& request, bool terminal, bool hijacked);

// One piece of output as a client gets it; `frame` false passes it on as it is.
std::string framed(OutputKind stream, std::string_view bytes, bool frame);

// docker-py reads the descriptor under its HTTP buffer, so what comes right behind the header could
// be lost: waits (bounded, usually not at all) until the client has taken the header.
void settle(int fd);

// Client → process. `open` gives the process's input stream (it may block until the process runs)
// or an invalid Fd when it never will.
class InputPump {
 public:
  using OpenFunction = std::function<Fd()>;
  struct Options {
    bool end_input = false;   // the client's end is the end of the process's input
    std::string detach_keys;  // typed, they detach the client; empty: none
    std::function<void()> detached = {};
  };
  InputPump(RawConnection connection, Options options, OpenFunction open);
  ~InputPump();  // as stop()

  void stop();  // the output is over or the client is gone; `open` must return by itself
  bool stopping() const { return stopping_; }

 private:
  void pump();
  void forward(int process);
  bool pass(int process, std::string_view input);

  RawConnection connection_;
  const Options options_;
  DetachKeys detach_keys_;
  OpenFunction open_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  int process_ = -1;  // while it is open
  std::thread thread_;
};

// A Sink onto a raw connection; a client that is gone is kCancelled.
class RawSink final : public Sink {
 public:
  explicit RawSink(int fd) : fd_(fd) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;

 private:
  int fd_;
};

}  // namespace hull::engine::api
