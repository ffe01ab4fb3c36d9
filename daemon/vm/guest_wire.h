// The bytes between engine and guest: the VMM's connect handshake (vmm/config/vm_config.h,
// VsockConfig) and the frames of guest-init/protocol. Everything received is hostile: bounded, with
// a deadline, and given up as soon as the VMM process is gone. No state of its own; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine {

using Deadline = std::chrono::steady_clock::time_point;
inline Deadline deadlineIn(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

inline constexpr size_t kMaxHandshakeBytes = 256;      // of the VMM's answer line
inline constexpr size_t kMaxGuestMessageBytes = 4096;  // of a guest's error text that is passed on

// Waits until `fd` has one of the poll `events`. kTimeout at the deadline; kUnavailable when the
// process behind `pidfd` (-1: none) has ended and `fd` is silent.
void waitFor(int fd, short events, Deadline deadline, int pidfd);

// One attempt to reach a guest port through the VMM's socket. kUnavailable when refused.
Fd connectGuest(const std::string& socket_path, uint32_t port, Deadline deadline, int pidfd);

// The socket may be blocking or not; never waits past the deadline, never raises SIGPIPE.
void sendAll(int fd, std::string_view bytes, Deadline deadline, int pidfd);
// Blocking, without a deadline; never raises SIGPIPE.
void sendBlocking(int fd, std::span<const std::byte> bytes);

// The next frame, exactly: nothing behind it is read. kCorrupt for bytes that are none.
guest::Frame receiveFrame(int fd, Deadline deadline, int pidfd);

// Frames out of a stream that is read as bytes arrive.
class FrameAssembler {
 public:
  enum class Filled { kBytes, kNothing, kEnd };
  Filled fill(int fd);  // takes what the socket has now, without waiting
  // A complete frame when there is one; throws kCorrupt.
  std::optional<guest::Frame> next();

 private:
  std::string buffer_;
  size_t start_ = 0;
};

// A Failure reply as the error its kind stands for.
[[noreturn]] void throwFailure(const guest::Failure& failure);

// Text of a guest, fit for a message: bounded, control characters escaped.
std::string printable(std::string_view text, size_t limit = kMaxGuestMessageBytes);

}  // namespace hull::engine
