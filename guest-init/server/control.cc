#include "guest-init/server/control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "guest-init/system/log.h"

namespace hull::guest {

namespace {
constexpr size_t kReceiveBytes = 64 * 1024;
}

ControlConnection::ControlConnection(EventLoop& loop, Fd socket, Handler handler,
                                     std::function<void()> closed)
    : loop_(loop),
      socket_(std::move(socket)),
      handler_(std::move(handler)),
      closed_(std::move(closed)) {
  setNonBlocking(socket_.get());
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
}

ControlConnection::~ControlConnection() {
  loop_.remove(socket_.get());
}

void ControlConnection::ready(uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !flush()) return fail();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && (!receive() || !takeFrames())) fail();
}

// False at the end of the connection.
bool ControlConnection::receive() {
  std::array<char, kReceiveBytes> buffer;
  const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  input_.append(buffer.data(), static_cast<size_t>(got));
  return got > 0;
}

bool ControlConnection::takeFrames() {
  size_t at = 0;
  while (!failed_ && input_.size() - at >= kFrameHeaderBytes) {
    const std::string_view rest = std::string_view(input_).substr(at);
    const auto header = decodeHeader(rest.substr(0, kFrameHeaderBytes));
    if (!header) {
      note("control connection: bad frame header");
      return false;
    }
    const size_t size = kFrameHeaderBytes + header->payload_bytes;
    if (rest.size() < size) break;
    auto frame = decodePayload(*header, rest.substr(kFrameHeaderBytes, header->payload_bytes));
    if (!frame) {
      note("control connection: bad frame");
      return false;
    }
    at += size;
    handler_(std::move(*frame));
  }
  input_.erase(0, at);
  return true;
}

void ControlConnection::send(const Frame& frame) {
  if (failed_) return;
  const bool was_empty = output_.empty();
  output_ += encode(frame);
  if (output_.size() > kMaxQueuedReplyBytes || (was_empty && !flush())) fail();
}

bool ControlConnection::flush() {
  while (!output_.empty()) {
    const ssize_t put = ::send(socket_.get(), output_.data(), output_.size(), MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno != EAGAIN) return false;
    if (put < 0) break;
    output_.erase(0, static_cast<size_t>(put));
  }
  loop_.modify(socket_.get(), output_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
  return true;
}

void ControlConnection::flushBlocking() {
  setNonBlocking(socket_.get(), false);
  while (!output_.empty()) {
    const ssize_t put = ::send(socket_.get(), output_.data(), output_.size(), MSG_NOSIGNAL);
    if (put <= 0) return;
    output_.erase(0, static_cast<size_t>(put));
  }
}

void ControlConnection::fail() {
  if (failed_) return;
  failed_ = true;
  loop_.remove(socket_.get());
  closed_();
}

}  // namespace hull::guest
