#include "vmm/virtio/net/stream.h"

#include <endian.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/virtio/net/frame.h"
#include "vmm/virtio/net/net.h"

namespace hull::vmm::virtio {

namespace {

constexpr size_t kMaxParts = NetDevice::kQueueSize + 2;

bool wouldBlock(int cause) {
  return cause == EAGAIN || cause == EWOULDBLOCK || cause == EINTR;
}

}  // namespace

StreamBackend::StreamBackend(int socket)
    : socket_(socket), rest_(std::make_unique<std::byte[]>(kStreamLengthBytes + kMaxFrameBytes)) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(socket_, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM) {
    throw Error(ErrorKind::kInvalidArgument, "set up network: stream_fd is not a stream socket");
  }
  setNonBlocking(socket_);
  slice_.reserve(kMaxParts);
}

bool StreamBackend::ready() noexcept {
  if (ended()) rest_begin_ = rest_end_;  // nobody waits for it any more
  while (rest_begin_ < rest_end_) {
    const ssize_t sent = ::send(socket_, rest_.get() + rest_begin_, rest_end_ - rest_begin_,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && wouldBlock(errno)) return false;
    if (sent <= 0) {
      end();
      rest_begin_ = rest_end_;
      break;
    }
    rest_begin_ += static_cast<size_t>(sent);
  }
  return true;
}

void StreamBackend::send(std::span<const iovec> parts) noexcept {
  if (ended() || parts.empty() || !ready()) return;
  size_t frame_bytes = 0;
  for (const iovec& part : parts.subspan(1)) frame_bytes += part.iov_len;
  uint32_t length = htobe32(static_cast<uint32_t>(frame_bytes));
  slice_.clear();
  slice_.push_back({&length, sizeof length});  // in the place of the header
  slice_.insert(slice_.end(), parts.begin() + 1, parts.end());
  msghdr message{};
  message.msg_iov = slice_.data();
  message.msg_iovlen = slice_.size();
  const ssize_t sent = sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && !wouldBlock(errno)) {
    end();
    return;
  }
  keepRest(sent < 0 ? 0 : static_cast<size_t>(sent));
}

void StreamBackend::keepRest(size_t sent) noexcept {
  rest_begin_ = rest_end_ = 0;
  for (const iovec& part : slice_) {
    const size_t skipped = std::min(sent, part.iov_len);
    const size_t kept = part.iov_len - skipped;
    std::memcpy(rest_.get() + rest_end_, static_cast<const std::byte*>(part.iov_base) + skipped,
                kept);
    rest_end_ += kept;
    sent -= skipped;
  }
}

size_t StreamBackend::receive(std::span<std::byte> into) noexcept {
  for (;;) {
    const auto frame = frames_.next();
    if (!frame.empty()) {
      std::memset(into.data(), 0, kNetHeaderBytes);
      std::memcpy(into.data() + kNetHeaderBytes, frame.data(), frame.size());
      return kNetHeaderBytes + frame.size();
    }
    if (!fill()) return 0;
  }
}

bool StreamBackend::fill() noexcept {
  if (frames_.broken() && !ended()) {
    log::warning("net: the network process sent a length that no frame has: it is not listened to");
    end();
  }
  if (ended()) return false;
  const auto space = frames_.space();
  const ssize_t got = ::recv(socket_, space.data(), space.size(), MSG_DONTWAIT);
  if (got < 0 && wouldBlock(errno)) return false;
  if (got <= 0) {
    end();
    return false;
  }
  frames_.filled(static_cast<size_t>(got));
  return true;
}

}  // namespace hull::vmm::virtio
