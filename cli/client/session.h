// The terminal end of an attached process: standard input to the connection, the connection's
// frames to standard output and error; raw mode, window size, detach keys and signals.
#pragma once

#include <functional>
#include <string>

#include "base/detach_keys.h"
#include "cli/client/engine_client.h"

namespace hull::cli {

struct SessionOptions {
  bool terminal = false;  // the process has a tty: bytes are raw, else framed
  bool send_input = false;
  std::string detach_keys = std::string(kDefaultDetachKeys);  // with a tty; empty: none
  std::function<void(int rows, int columns)> resize;          // now and at every SIGWINCH
  std::function<void(int signal_number)> forward_signal;      // without a tty: SIGINT, SIGTERM, …
};

enum class SessionEnd { kStreamClosed, kDetached };

// Until the connection ends or the detach keys are typed. The terminal is always
// put back.
SessionEnd runSession(Hijacked connection, const SessionOptions& options);

// Splits Docker's stream frames: [stream, 0, 0, 0, big-endian size] and the data.
class FrameSplitter {
 public:
  using Output = std::function<void(int stream, std::string_view data)>;
  explicit FrameSplitter(Output output) : output_(std::move(output)) {}
  void feed(std::string_view data);

 private:
  Output output_;
  std::string header_;
  uint32_t left_ = 0;
};

}  // namespace hull::cli
