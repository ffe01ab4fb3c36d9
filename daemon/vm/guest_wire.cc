#include "daemon/vm/guest_wire.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/error.h"

namespace hull::engine {

namespace {

constexpr size_t kReadChunkBytes = 64 * 1024;

int millisecondsUntil(Deadline deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

Error closedByGuest() {
  return Error(ErrorKind::kUnavailable, "the guest closed the connection");
}

// Exactly `size` bytes.
std::string receiveExactly(int fd, size_t size, Deadline deadline, int pidfd) {
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {
    waitFor(fd, POLLIN, deadline, pidfd);
    const ssize_t got = recv(fd, bytes.data() + done, size - done, MSG_DONTWAIT);
    if (got == 0) throw closedByGuest();
    if (got < 0 && errno != EAGAIN && errno != EINTR) throw sysError("read from the guest");
    if (got > 0) done += static_cast<size_t>(got);
  }
  return bytes;
}

guest::FrameHeader checkedHeader(std::string_view bytes) {
  const auto header = guest::decodeHeader(bytes);
  if (!header) throw Error(ErrorKind::kCorrupt, "the guest sent what is no message");
  return *header;
}

guest::Frame checkedFrame(const guest::FrameHeader& header, std::string_view payload) {
  auto frame = guest::decodePayload(header, payload);
  if (!frame) throw Error(ErrorKind::kCorrupt, "the guest sent a malformed message");
  return std::move(*frame);
}

}  // namespace

void waitFor(int fd, short events, Deadline deadline, int pidfd) {
  for (;;) {
    std::array<pollfd, 2> polled{{{fd, events, 0}, {pidfd, POLLIN, 0}}};
    const int ready = poll(polled.data(), polled.size(), millisecondsUntil(deadline));
    if (ready < 0 && errno != EINTR) throw sysError("wait for the guest");
    if (ready < 0) continue;
    if (polled[0].revents != 0) return;
    if (polled[1].revents != 0) {
      throw Error(ErrorKind::kUnavailable, "the virtual machine has ended");
    }
    if (ready == 0) throw Error(ErrorKind::kTimeout, "the guest did not answer in time");
  }
}

Fd connectGuest(const std::string& socket_path, uint32_t port, Deadline deadline, int pidfd) {
  Fd socket = connectUnix(socket_path);
  sendAll(socket.get(), "CONNECT " + std::to_string(port) + "\n", deadline, pidfd);
  // Byte by byte: what follows the line belongs to the stream.
  std::string line;
  while (line.empty() || line.back() != '\n') {
    if (line.size() >= kMaxHandshakeBytes) {
      throw Error(ErrorKind::kCorrupt, "connect to the guest: the VMM's answer has no end");
    }
    line += receiveExactly(socket.get(), 1, deadline, pidfd);
  }
  line.pop_back();
  if (line.starts_with("OK ")) return socket;
  throw Error(ErrorKind::kUnavailable, "connect to the guest: " + printable(line));
}

void sendAll(int fd, std::string_view bytes, Deadline deadline, int pidfd) {
  while (!bytes.empty()) {
    const ssize_t put = send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put >= 0) {
      bytes.remove_prefix(static_cast<size_t>(put));
    } else if (errno == EAGAIN) {
      waitFor(fd, POLLOUT, deadline, pidfd);
    } else if (errno != EINTR) {
      throw sysError("write to the guest");
    }
  }
}

void sendBlocking(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put < 0 && errno != EINTR) throw sysError("write to the guest");
    if (put > 0) bytes = bytes.subspan(static_cast<size_t>(put));
  }
}

guest::Frame receiveFrame(int fd, Deadline deadline, int pidfd) {
  const auto header = checkedHeader(receiveExactly(fd, guest::kFrameHeaderBytes, deadline, pidfd));
  return checkedFrame(header, receiveExactly(fd, header.payload_bytes, deadline, pidfd));
}

FrameAssembler::Filled FrameAssembler::fill(int fd) {
  const size_t had = buffer_.size();
  buffer_.resize(had + kReadChunkBytes);
  const ssize_t got = recv(fd, buffer_.data() + had, kReadChunkBytes, MSG_DONTWAIT);
  buffer_.resize(had + (got > 0 ? static_cast<size_t>(got) : 0));
  if (got > 0) return Filled::kBytes;
  return got < 0 && (errno == EAGAIN || errno == EINTR) ? Filled::kNothing : Filled::kEnd;
}

std::optional<guest::Frame> FrameAssembler::next() {
  const std::string_view rest = std::string_view(buffer_).substr(start_);
  if (rest.size() >= guest::kFrameHeaderBytes) {
    const auto header = checkedHeader(rest.substr(0, guest::kFrameHeaderBytes));
    const size_t whole = guest::kFrameHeaderBytes + header.payload_bytes;
    if (rest.size() >= whole) {
      auto frame =
          checkedFrame(header, rest.substr(guest::kFrameHeaderBytes, header.payload_bytes));
      start_ += whole;
      return frame;
    }
  }
  buffer_.erase(0, start_);
  start_ = 0;
  return std::nullopt;
}

void throwFailure(const guest::Failure& failure) {
  ErrorKind kind = ErrorKind::kInternal;
  switch (failure.code) {
    case guest::FailureCode::kOther:
      break;
    case guest::FailureCode::kNotFound:
      kind = ErrorKind::kNotFound;
      break;
    case guest::FailureCode::kPermission:
      kind = ErrorKind::kForbidden;
      break;
    case guest::FailureCode::kInvalid:
      kind = ErrorKind::kInvalidArgument;
      break;
    case guest::FailureCode::kConflict:
      kind = ErrorKind::kConflict;
      break;
  }
  throw Error(kind, printable(failure.message));
}

std::string printable(std::string_view text, size_t limit) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  if (text.size() > limit) out += "…";
  return out;
}

}  // namespace hull::engine
