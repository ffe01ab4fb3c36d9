#include "vmm/virtio/vsock/stream.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "vmm/virtio/queue/queue.h"

namespace hull::vmm::virtio {

namespace {

constexpr std::string_view kConnect = "CONNECT ";
constexpr size_t kMaxGreetingBytes = 32;

}  // namespace

VsockStream::Greeting VsockStream::readGreeting() noexcept {
  std::array<char, kMaxGreetingBytes> line;
  const ssize_t got = recv(client.get(), line.data(), line.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Greeting::kIncomplete;
  if (got <= 0) return Greeting::kBad;
  const std::string_view seen(line.data(), static_cast<size_t>(got));
  const size_t newline = seen.find('\n');
  const bool complete = newline != std::string_view::npos;
  const size_t take = complete ? newline + 1 : seen.size();
  if (greeting_.size() + take > kMaxGreetingBytes) return Greeting::kBad;
  if (recv(client.get(), line.data(), take, MSG_DONTWAIT) != static_cast<ssize_t>(take)) {
    return Greeting::kBad;
  }
  greeting_.append(line.data(), take);
  if (!complete) return Greeting::kIncomplete;
  if (!greeting_.starts_with(kConnect)) return Greeting::kBad;
  const char* number = greeting_.data() + kConnect.size();
  const char* end = greeting_.data() + greeting_.size() - 1;
  const auto [stop, error] = std::from_chars(number, end, guest_port);
  return error == std::errc() && stop == end ? Greeting::kOk : Greeting::kBad;
}

void VsockStream::answer(std::string_view line) noexcept {
  [[maybe_unused]] const ssize_t sent =
      send(client.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void VsockStream::deliver(std::span<const iovec> bytes) noexcept {
  uint64_t total = 0;
  for (const iovec& part : bytes) total += part.iov_len;
  if (deaf || !client) {
    receive_credit.forward(static_cast<uint32_t>(total));
    return;
  }
  uint64_t sent = 0;
  if (!hasPending()) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(bytes.data());
    message.msg_iovlen = bytes.size();
    const ssize_t put = sendmsg(client.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
      receive_credit.forward(static_cast<uint32_t>(total));
      return stopDelivering();
    }
    if (put > 0) sent = static_cast<uint64_t>(put);
    receive_credit.forward(static_cast<uint32_t>(sent));
    pending_.clear();
    pending_start_ = 0;
  }
  std::vector<iovec> rest;
  appendSlice(bytes, sent, total - sent, rest);
  for (const iovec& part : rest) {
    const auto* start = static_cast<const std::byte*>(part.iov_base);
    pending_.insert(pending_.end(), start, start + part.iov_len);
  }
}

void VsockStream::flush() noexcept {
  while (hasPending()) {
    const size_t left = pending_.size() - pending_start_;
    const ssize_t put =
        send(client.get(), pending_.data() + pending_start_, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == EAGAIN || errno == ENOBUFS)) break;
    if (put <= 0) return stopDelivering();
    pending_start_ += static_cast<size_t>(put);
    receive_credit.forward(static_cast<uint32_t>(put));
  }
  if (!hasPending()) {
    pending_ = {};
    pending_start_ = 0;
  } else if (pending_start_ >= ReceiveCredit::kBufferBytes / 2) {
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(pending_start_));
    pending_start_ = 0;
  }
}

// The client has closed or shut down its reading side: tell the guest, drop what comes.
void VsockStream::stopDelivering() noexcept {
  deaf = true;
  receive_credit.forward(static_cast<uint32_t>(pending_.size() - pending_start_));
  pending_ = {};
  pending_start_ = 0;
  if ((shutdown_told & kShutdownReceive) == 0) shutdown_due |= kShutdownReceive;
}

void VsockStream::endToClient() noexcept {
  if (end_sent_ || hasPending() || !client) return;
  end_sent_ = true;
  shutdown(client.get(), SHUT_WR);
}

ssize_t VsockStream::receive(std::span<const iovec> into) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(into.data());
  message.msg_iovlen = into.size();
  for (;;) {
    const ssize_t got = recvmsg(client.get(), &message, MSG_DONTWAIT);
    if (got >= 0) return got;
    if (errno == EINTR) continue;
    return errno == EAGAIN ? -1 : 0;  // an error ends the stream as a close does
  }
}

bool VsockStream::atEnd() noexcept {
  char byte;
  const ssize_t got = recv(client.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace hull::vmm::virtio
