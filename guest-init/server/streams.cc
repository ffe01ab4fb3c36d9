#include "guest-init/server/streams.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace hull::guest {

namespace {

constexpr size_t kReceiveBytes = 64 * 1024;

// After the peer's end of input: is it only half-closed, and still listening? An empty send says
// (EPIPE when the peer closed both ways), on AF_UNIX and AF_VSOCK alike.
bool peerIsHalfClosed(int socket) {
  return send(socket, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == 0;
}

}  // namespace

void StreamSet::add(const std::function<std::unique_ptr<Stream>(StreamDone)>& make) {
  const uint64_t id = next_++;
  streams_[id] = nullptr;  // done() may come before make() returns
  auto stream = make([this, id] { loop_.post([this, id] { streams_.erase(id); }); });
  streams_[id] = std::move(stream);
}

OpeningStream::OpeningStream(EventLoop& loop, Fd socket, Opened opened, StreamDone done)
    : loop_(loop), socket_(std::move(socket)), opened_(std::move(opened)), done_(std::move(done)) {
  setNonBlocking(socket_.get());
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t) {
    if (receive()) return;
    loop_.remove(socket_.get());
    socket_.reset();
    done_();
  });
}

OpeningStream::~OpeningStream() {
  if (socket_) loop_.remove(socket_.get());
}

// False when the connection is of no more use here.
bool OpeningStream::receive() {
  size_t wanted = kFrameHeaderBytes;
  std::optional<FrameHeader> header;
  if (input_.size() >= kFrameHeaderBytes) {
    header = decodeHeader(std::string_view(input_).substr(0, kFrameHeaderBytes));
    if (!header) return false;
    wanted += header->payload_bytes;
  }
  std::array<char, kReceiveBytes> buffer;
  const size_t missing = std::min(buffer.size(), wanted - input_.size());
  const ssize_t got = recv(socket_.get(), buffer.data(), missing, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  input_.append(buffer.data(), static_cast<size_t>(got));
  if (!header || input_.size() < wanted) return true;
  auto frame = decodePayload(*header, std::string_view(input_).substr(kFrameHeaderBytes));
  if (!frame || !std::holds_alternative<OpenStream>(frame->message)) return false;
  loop_.remove(socket_.get());
  opened_(std::move(socket_), std::move(*frame));
  return false;
}

OutputStream::OutputStream(EventLoop& loop, Fd socket, std::shared_ptr<OutputChannel> channel,
                           uint64_t offset, StreamDone done)
    : loop_(loop),
      socket_(std::move(socket)),
      channel_(std::move(channel)),
      sent_(offset),
      done_(std::move(done)) {
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t events) { ready(events); });
  channel_->setReader(this, [this] {
    if (channel_->reader() != this || channel_->abandoned()) return finish();
    push();
  });
  push();
}

OutputStream::~OutputStream() {
  channel_->clearReader(this);
  if (socket_) loop_.remove(socket_.get());
}

void OutputStream::ready(uint32_t events) {
  if ((events & EPOLLOUT) != 0) push();
  if (!finished_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receiveAcknowledgements()) {
    finish();
  }
}

bool OutputStream::receiveAcknowledgements() {
  std::array<char, kReceiveBytes> buffer;
  const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  acknowledgement_.append(buffer.data(), static_cast<size_t>(got));
  const size_t whole = acknowledgement_.size() / sizeof(uint64_t);
  for (size_t i = 0; i < whole; ++i) {
    uint64_t total;
    std::memcpy(&total, acknowledgement_.data() + i * sizeof total, sizeof total);
    // What was not sent on this connection cannot have arrived over it.
    if (total > sent_ || !channel_->acknowledge(total)) return false;
  }
  acknowledgement_.erase(0, whole * sizeof(uint64_t));
  return true;
}

void OutputStream::push() {
  if (finished_ || end_sent_) return;
  for (;;) {
    const std::string_view rest = channel_->retained().from(sent_);
    if (rest.empty()) break;
    const ssize_t put = send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (put > 0) {
      sent_ += static_cast<uint64_t>(put);
    } else if (errno != EINTR) {
      if (errno != EAGAIN) return finish();
      return loop_.modify(socket_.get(), EPOLLIN | EPOLLOUT);
    }
  }
  if (channel_->ended()) {
    shutdown(socket_.get(), SHUT_WR);
    end_sent_ = true;  // acknowledgements may still come
  }
  loop_.modify(socket_.get(), EPOLLIN);
}

void OutputStream::finish() {
  if (finished_) return;
  finished_ = true;
  channel_->clearReader(this);
  loop_.remove(socket_.get());
  socket_.reset();
  done_();
}

InputStream::InputStream(EventLoop& loop, Fd socket, std::shared_ptr<InputChannel> channel,
                         StreamDone done)
    : loop_(loop),
      socket_(std::move(socket)),
      channel_(std::move(channel)),
      done_(std::move(done)) {
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t) { ready(); });
  channel_->setWriter(this, [this] { changed(); });
  changed();
}

InputStream::~InputStream() {
  channel_->clearWriter(this);
  if (socket_) loop_.remove(socket_.get());
}

void InputStream::changed() {
  if (channel_->writer() != this || channel_->closed()) return finish();
  if (!finished_ && !ended_) loop_.modify(socket_.get(), channel_->idle() ? uint32_t{EPOLLIN} : 0);
}

void InputStream::ready() {
  std::array<char, kReceiveBytes> buffer;
  const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (got > 0) {
    channel_->write(std::string_view(buffer.data(), static_cast<size_t>(got)));
    if (!finished_) changed();
    return;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got == 0 && peerIsHalfClosed(socket_.get())) {
    // The connection stays open until everything has reached the process, for the peer to see.
    ended_ = true;
    loop_.modify(socket_.get(), 0);
    channel_->finish();
    if (!channel_->closed()) return;
  }
  finish();
}

void InputStream::finish() {
  if (finished_) return;
  finished_ = true;
  channel_->clearWriter(this);
  loop_.remove(socket_.get());
  socket_.reset();
  done_();
}

}  // namespace hull::guest
