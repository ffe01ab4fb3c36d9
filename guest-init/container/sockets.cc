#include "guest-init/container/sockets.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

#include "base/error.h"
#include "guest-init/container/rootfs.h"

namespace hull::guest {

namespace {
constexpr mode_t kSocketMode = 0660;  // and root's
}

ListeningSocket::ListeningSocket(EventLoop& loop, const std::string& path)
    : loop_(loop), listener_(listenUnix(path, kSocketMode)) {
  setNonBlocking(listener_.get());
}

ListeningSocket::~ListeningSocket() {
  if (loop_.watches(listener_.get())) loop_.remove(listener_.get());
  for (const auto& [ticket, taker] : std::exchange(waiting_, {})) taker({});
}

uint64_t ListeningSocket::await(Taker taker) {
  const uint64_t ticket = next_ticket_++;
  waiting_[ticket] = std::move(taker);
  watch();
  return ticket;
}

void ListeningSocket::giveUp(uint64_t ticket) {
  waiting_.erase(ticket);
  watch();
}

// Connections that nobody waits for stay in the backlog.
void ListeningSocket::watch() {
  const bool watched = loop_.watches(listener_.get());
  if (waiting_.empty() && watched) loop_.remove(listener_.get());
  if (!waiting_.empty() && !watched) {
    loop_.add(listener_.get(), EPOLLIN, [this](uint32_t) { ready(); });
  }
}

void ListeningSocket::ready() {
  Fd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!connection) return;
  const auto last = std::prev(waiting_.end());
  const Taker taker = std::move(last->second);
  waiting_.erase(last);
  watch();
  taker(std::move(connection));
}

ListeningSocket& Sockets::get(const std::string& name) {
  const auto found = sockets_.find(name);
  if (found != sockets_.end()) return *found->second;
  checkPlainName("socket", name);
  if (sockets_.size() >= kMaxSockets) {
    throw Error(ErrorKind::kTooLarge,
                "socket " + name + ": a container has at most " + std::to_string(kMaxSockets));
  }
  return *(sockets_[name] = std::make_unique<ListeningSocket>(loop_, folder_ + "/" + name));
}

}  // namespace hull::guest
