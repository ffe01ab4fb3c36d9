#include "daemon/api/raw_stream.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine::api {

namespace {

constexpr std::chrono::microseconds kSettleStep{200};
constexpr int kSettleSteps = 1000;          // a busy client may take long to read its header
constexpr unsigned kMultiplexedMinor = 42;  // Content-Type multiplexed-stream from API 1.42 on
constexpr size_t kInputBytes = 64 * 1024;

bool sendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

}  // namespace

const char* rawStreamType(const Request& request, bool terminal, bool hijacked) {
  const bool multiplexed =
      !terminal && request.api_minor >= kMultiplexedMinor && (!hijacked || request.upgrade);
  return multiplexed ? "application/vnd.docker.multiplexed-stream"
                     : "application/vnd.docker.raw-stream";
}

std::string framed(OutputKind stream, std::string_view bytes, bool frame) {
  std::string text;
  if (frame) {
    const auto size = static_cast<uint32_t>(bytes.size());
    text = {static_cast<char>(stream),
            0,
            0,
            0,
            static_cast<char>(size >> 24),
            static_cast<char>(size >> 16),
            static_cast<char>(size >> 8),
            static_cast<char>(size)};
  }
  return text.append(bytes);
}

void settle(int fd) {
  for (int i = 0; i < kSettleSteps; ++i) {
    int unread = 0;
    if (ioctl(fd, SIOCOUTQ, &unread) != 0 || unread == 0) return;
    std::this_thread::sleep_for(kSettleStep);
  }
}

void RawSink::write(std::span<const std::byte> bytes) {
  if (!sendAll(fd_, {reinterpret_cast<const char*>(bytes.data()), bytes.size()})) {
    throw Error(ErrorKind::kCancelled, "the client went away");
  }
}

InputPump::InputPump(RawConnection connection, bool end_input, OpenFunction open)
    : connection_(std::move(connection)), end_input_(end_input), open_(std::move(open)) {
  thread_ = std::thread([this] {
    try {
      pump();
    } catch (const std::exception& error) {
      log::debug(std::string("attached input: ") + error.what());
    }
  });
}

InputPump::~InputPump() {
  stop();
}

void InputPump::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    shutdown(connection_.fd, SHUT_RD);
    if (process_ >= 0) shutdown(process_, SHUT_RDWR);
  }
  if (thread_.joinable()) thread_.join();
}

void InputPump::pump() {
  const Fd process = open_();
  if (!process) return;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    process_ = process.get();
  }
  forward(process.get());
  const std::lock_guard lock(mutex_);
  process_ = -1;
}

void InputPump::forward(int process) {
  if (!sendAll(process, connection_.already_read)) return;
  std::array<std::byte, kInputBytes> buffer;
  for (;;) {
    // The process may close its input while the client says nothing.
    std::array<pollfd, 2> waiting{{{connection_.fd, POLLIN, 0}, {process, 0, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (waiting[0].revents == 0) return;  // the process's end alone
    const ssize_t got = recv(connection_.fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (!sendAll(process, {reinterpret_cast<const char*>(buffer.data()), static_cast<size_t>(got)}))
      return;
  }
  if (stopping_ || !end_input_) return;
  // The end of input: half-close, then wait for the guest to close (protocol.h, kStdin).
  shutdown(process, SHUT_WR);
  while (recv(process, buffer.data(), buffer.size(), 0) > 0) {
  }
}

}  // namespace hull::engine::api
