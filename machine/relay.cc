#include "machine/relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace hull::machine {

Relay::Relay(EventLoop& loop, Mux& mux, Fd socket)
    : loop_(loop), mux_(mux), socket_(std::move(socket)) {
  setNonBlocking(socket_.get());
}

bool Relay::open(EventLoop& loop, Mux& mux, std::string_view target, Fd socket,
                 std::string_view first) {
  auto relay = std::make_shared<Relay>(loop, mux, std::move(socket));
  relay->stream_ = mux.open(target, relay);
  if (relay->stream_ == 0) return false;
  relay->first_ = first;
  relay->update();
  return true;
}

std::shared_ptr<StreamEvents> Relay::accept(EventLoop& loop, Mux& mux, uint32_t stream, Fd socket) {
  auto relay = std::make_shared<Relay>(loop, mux, std::move(socket));
  relay->stream_ = stream;
  relay->update();
  return relay;
}

void Relay::watch() {
  if (watched_) return;
  // The loop's handler keeps the relay alive after the stream has left the mux.
  loop_.add(socket_.get(), interest_,
            [self = shared_from_this()](uint32_t events) { self->onSocket(events); });
  watched_ = true;
}

void Relay::unwatch() {
  if (!watched_) return;
  watched_ = false;
  loop_.remove(socket_.get());
}

void Relay::update() {
  if (!socket_) return;
  if (!first_.empty()) {
    const size_t size = std::min(first_.size(), mux_.room(stream_));
    mux_.send(stream_, std::string_view(first_).substr(0, size));
    first_.erase(0, size);
  }
  const bool can_read = !input_ended_ && !stream_gone_ && first_.empty() && mux_.room(stream_) > 0;
  const bool has_output = pending_begin_ < pending_.size();
  const uint32_t wanted = (can_read ? EPOLLIN : 0U) | (has_output ? EPOLLOUT : 0U);
  if (watched_ && wanted == interest_) return;
  interest_ = wanted;
  if (watched_) {
    loop_.modify(socket_.get(), interest_);
  } else {
    watch();
  }
}

void Relay::onSocket(uint32_t events) {
  const auto self = shared_from_this();
  if ((events & EPOLLOUT) != 0 && !flush()) return;
  const bool hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;
  if ((events & EPOLLIN) != 0 || hung_up) readSocket(hung_up);
  if (socket_ && watched_) update();
}

void Relay::readSocket(bool hung_up) {
  if (stream_gone_) {  // only flushing: a socket whose peer is gone needs no flushing
    if (hung_up) finish();
    return;
  }
  if (!input_ended_) {
    const size_t room = first_.empty() ? mux_.room(stream_) : 0;
    if (room == 0) {
      // The rest of what it sent must wait; level-triggered hang-ups would spin until then.
      if (hung_up) unwatch();
      return;
    }
    std::array<char, kMaxPayloadBytes> buffer;
    const ssize_t got = ::read(socket_.get(), buffer.data(), std::min(room, buffer.size()));
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      return abandon();
    }
    if (got > 0) return mux_.send(stream_, {buffer.data(), static_cast<size_t>(got)});
    input_ended_ = true;
    if (!hung_up) {
      mux_.fin(stream_);
      if (output_ended_ && shut_) finish();
      return;
    }
  }
  if (hung_up) {  // nobody will read or write there again
    mux_.close(stream_);
    finish();
  }
}

void Relay::onData(std::string_view bytes) {
  if (!socket_) return;
  size_t done = 0;
  if (pending_begin_ == pending_.size()) {
    const ssize_t put = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    // ENOTCONN: a TCP socket that is still connecting (a unix socket connects at once).
    if (put < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) return abandon();
    if (put > 0) done = static_cast<size_t>(put);
  }
  mux_.consumed(stream_, done);
  if (done < bytes.size()) pending_.append(bytes.substr(done));
  update();
}

bool Relay::flush() {
  while (pending_begin_ < pending_.size()) {
    const ssize_t put = ::send(socket_.get(), pending_.data() + pending_begin_,
                               pending_.size() - pending_begin_, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == EAGAIN || errno == ENOTCONN)) return true;
    if (put < 0) {
      abandon();
      return false;
    }
    pending_begin_ += static_cast<size_t>(put);
    mux_.consumed(stream_, static_cast<size_t>(put));
  }
  pending_.clear();
  pending_begin_ = 0;
  if (stream_gone_) {
    finish();
    return false;
  }
  if (output_ended_ && !shut_) {
    shut_ = true;
    shutdown(socket_.get(), SHUT_WR);
    if (input_ended_) {
      finish();
      return false;
    }
  }
  return true;
}

void Relay::onFin() {
  output_ended_ = true;
  if (!socket_) return;
  const auto self = shared_from_this();
  if (flush()) update();
}

void Relay::onClosed(bool orderly) {
  if (!socket_) return;
  const auto self = shared_from_this();
  stream_gone_ = true;
  if (!orderly) return finish();
  if (flush()) update();
}

void Relay::onWritable() {
  const auto self = shared_from_this();
  if (socket_) update();
}

void Relay::abandon() {
  mux_.reset(stream_);
  finish();
}

void Relay::finish() {
  const auto self = shared_from_this();
  unwatch();
  socket_.reset();
}

}  // namespace hull::machine
