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

InputPump::InputPump(RawConnection connection, Options options, OpenFunction open)
    : connection_(std::move(connection)),
      options_(std::move(options)),
      detach_keys_(options_.detach_keys),
      open_(std::move(open)) {
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

// False when there is nothing more to pass on: the process is gone, or the client detached.
bool InputPump::pass(int process, std::string_view input) {
  std::string bytes;
  const bool detached = detach_keys_.feed(input, bytes);
  const bool sent = sendAll(process, bytes);
  if (detached && options_.detached) options_.detached();
  return sent && !detached;
}

void InputPump::forward(int process) {
  if (!pass(process, connection_.already_read)) return;
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
    const auto* bytes = reinterpret_cast<const char*>(buffer.data());
    if (!pass(process, {bytes, static_cast<size_t>(got)})) return;
  }
  if (stopping_ || !options_.end_input) return;
  // The end of input: half-close, then wait for the guest to close (protocol.h, kStdin).
  shutdown(process, SHUT_WR);
  while (recv(process, buffer.data(), buffer.size(), 0) > 0) {
  }
}

}  // namespace hull::engine::api
