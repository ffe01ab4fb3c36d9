#include "base/joined_sockets.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace hull {

namespace {

// After its end of input: does it still take what we send? An empty send says (EPIPE when the peer
// has closed both ways), on AF_UNIX and AF_VSOCK alike.
bool stillTakes(int socket) {
  return send(socket, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == 0 || errno != EPIPE;
}

}  // namespace

JoinedSockets::JoinedSockets(EventLoop& loop, Fd first, Fd second, std::function<void()> done)
    : loop_(loop), done_(std::move(done)) {
  sides_[0].fd = std::move(first);
  sides_[1].fd = std::move(second);
  for (Side& side : sides_) {
    setNonBlocking(side.fd.get());
    side.watched = EPOLLIN;
    loop_.add(side.fd.get(), EPOLLIN, [this, &side](uint32_t events) { service(side, events); });
  }
}

JoinedSockets::~JoinedSockets() {
  for (const Side& side : sides_) loop_.remove(side.fd.get());
}

void JoinedSockets::service(Side& side, uint32_t events) {
  // What it has sent before is still there to be read.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) side.gone = true;
  move(sides_[0], sides_[1]);
  move(sides_[1], sides_[0]);
  if (over()) {
    for (const Side& each : sides_) loop_.remove(each.fd.get());
    return std::exchange(done_, nullptr)();  // may destroy this
  }
  watch(sides_[0], sides_[1]);
  watch(sides_[1], sides_[0]);
}

// As much as goes without waiting, but not all of a stream that never stops: others have their
// turn.
void JoinedSockets::move(Side& from, Side& to) {
  if (!from.held.empty()) {
    from.taken += give(from, to, {from.held.data() + from.taken, from.held.size() - from.taken});
    if (from.taken < from.held.size()) return;
    from.held = {};
    from.taken = 0;
  }
  // A side that is gone is not watched any more: what it still has is read to its end.
  while (!from.ended && from.held.empty() && receive(from, to) && from.gone) {
  }
  if (!from.ended || !from.held.empty() || from.told) return;
  shutdown(to.fd.get(), SHUT_WR);
  from.told = true;
}

// False when there was nothing.
bool JoinedSockets::receive(Side& from, Side& to) {
  std::array<char, kJoinedBufferBytes> buffer;
  const ssize_t got = recv(from.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) {
    if (errno == EINTR) return true;
    // Nobody would tell of more.
    if (errno != EAGAIN || from.gone) broken_ = true;
    return false;
  }
  if (got == 0) {
    from.ended = true;
    if (!stillTakes(from.fd.get())) from.gone = true;
    return false;
  }
  const auto size = static_cast<size_t>(got);
  const size_t put = give(from, to, {buffer.data(), size});
  if (put < size) from.held.assign(buffer.data() + put, buffer.data() + size);
  return true;
}

// How much of it the other side took; all, when it takes no more.
size_t JoinedSockets::give(Side& from, const Side& to, std::string_view bytes) {
  size_t put = 0;
  while (put < bytes.size()) {
    const ssize_t sent =
        send(to.fd.get(), bytes.data() + put, bytes.size() - put, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      put += static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      return put;
    } else if (errno != EINTR) {
      from.ended = from.told = true;
      shutdown(from.fd.get(), SHUT_RD);
      return bytes.size();
    }
  }
  return put;
}

bool JoinedSockets::over() const {
  if (broken_) return true;
  bool all = true;
  for (const Side& side : sides_) {
    // Who is gone gets nothing more: what he had to say is all there is.
    if (side.gone && side.told) return true;
    all = all && side.told;
  }
  return all;
}

void JoinedSockets::watch(Side& side, const Side& other) {
  if (!loop_.watches(side.fd.get())) return;
  if (side.gone) return loop_.remove(side.fd.get());
  uint32_t wanted = 0;
  if (!side.ended && side.held.empty()) wanted |= EPOLLIN;
  if (!other.held.empty()) wanted |= EPOLLOUT;
  if (wanted != side.watched) loop_.modify(side.fd.get(), wanted);
  side.watched = wanted;
}

}  // namespace hull
