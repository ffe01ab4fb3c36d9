#include "guest-init/server/connection_stream.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

namespace hull::guest {

ConnectionStream::ConnectionStream(EventLoop& loop, Fd host, ListeningSocket& socket,
                                   StreamDone done)
    : loop_(loop), host_(std::move(host)), socket_(&socket), done_(std::move(done)) {
  // The host says nothing before it is told: what comes is its end.
  loop_.add(host_.get(), EPOLLIN, [this](uint32_t) { finish(); });
  ticket_ = socket_->await([this](Fd client) { connected(std::move(client)); });
}

ConnectionStream::~ConnectionStream() {
  if (socket_) socket_->giveUp(ticket_);
  if (host_) loop_.remove(host_.get());
}

void ConnectionStream::connected(Fd client) {
  socket_ = nullptr;
  // The first byte behind the answer: it fits the connection's buffer.
  if (!client || send(host_.get(), &kConnected, sizeof kConnected, MSG_NOSIGNAL) != 1) {
    return finish();
  }
  loop_.remove(host_.get());
  joined_.emplace(loop_, std::move(host_), std::move(client), [this] { done_(); });
}

void ConnectionStream::finish() {
  if (socket_) std::exchange(socket_, nullptr)->giveUp(ticket_);
  loop_.remove(host_.get());
  host_.reset();
  done_();
}

}  // namespace hull::guest
