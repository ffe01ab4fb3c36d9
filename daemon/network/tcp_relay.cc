#include "daemon/network/tcp_relay.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine {

namespace {
constexpr std::chrono::milliseconds kAcceptRetry{100};  // when descriptors have run out
constexpr int kBacklog = 512;
}  // namespace

Fd listenTcp(const SocketAddress& address) {
  Fd listener(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) throw sysError("create socket");
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.family() == AF_INET6) {
    setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  if (bind(listener.get(), address.get(), address.length) < 0 ||
      listen(listener.get(), kBacklog) < 0) {
    if (errno == EADDRINUSE) throw Error(ErrorKind::kConflict, "address already in use");
    throw sysError("listen");
  }
  return listener;
}

class TcpRelay::Connection {
 public:
  Connection(TcpRelay& relay, Fd client) : relay_(relay), loop_(relay.loop_) {
    side(kClient).fd = std::move(client);
    if (relay.limits_.lifetime.count() > 0) {
      lifetime_ = loop_.after(relay.limits_.lifetime, [this] {
        lifetime_.reset();
        close();
      });
    }
    loop_.add(side(kClient).fd.get(), 0, [this](uint32_t events) {
      if (connecting_) return close();  // the client has given up
      service(events);
    });
    connectNext();
  }
  ~Connection() {
    for (auto& each : sides_) {
      if (each.fd.valid()) loop_.remove(each.fd.get());
    }
    for (const auto& timer : {timeout_, lifetime_}) {
      if (timer) loop_.cancel(*timer);
    }
  }

 private:
  enum Which { kClient, kTarget };
  struct Side {
    Fd fd;
    uint32_t watched = 0;
    // What was read here and goes to the other side.
    std::vector<char> buffer = std::vector<char>(kRelayBufferBytes);
    size_t begin = 0, end = 0;
    bool ended = false;  // no more to read here
    bool shut = false;   // the other side has been told
  };

  Side& side(Which which) { return sides_[which]; }
  Side& other(Which which) { return sides_[1 - which]; }
  void close() { relay_.remove(this); }  // deletes this

  void connectNext();
  void connected();
  void service(uint32_t events);
  bool move(Side& from, Side& to);
  void watch(Which which);

  TcpRelay& relay_;
  EventLoop& loop_;
  std::array<Side, 2> sides_;
  bool connecting_ = true;
  size_t attempts_ = 0;
  std::optional<EventLoop::TimerId> timeout_, lifetime_;
};

void TcpRelay::Connection::connectNext() {
  if (timeout_) loop_.cancel(*timeout_);
  timeout_.reset();
  Side& target = side(kTarget);
  if (target.fd.valid()) loop_.remove(target.fd.get());
  for (;;) {
    target.fd.reset();
    const auto address = relay_.target_(attempts_++);
    if (!address) {
      // Not from within the constructor: the relay does not know this connection yet.
      timeout_ = loop_.after(std::chrono::milliseconds(0), [this] {
        timeout_.reset();
        close();
      });
      return;
    }
    target.fd.reset(socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!target.fd) continue;
    if (connect(target.fd.get(), address->get(), address->length) == 0 || errno == EINPROGRESS)
      break;
  }
  timeout_ = loop_.after(relay_.limits_.connect_timeout, [this] {
    timeout_.reset();
    connectNext();
  });
  target.watched = EPOLLOUT;
  loop_.add(target.fd.get(), EPOLLOUT, [this](uint32_t events) {
    if (connecting_) return connected();
    service(events);
  });
}

void TcpRelay::Connection::connected() {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(side(kTarget).fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return connectNext();
  loop_.cancel(*timeout_);
  timeout_.reset();
  connecting_ = false;
  for (auto& each : sides_) {
    const int on = 1;
    setsockopt(each.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(each.fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
  service(0);
}

void TcpRelay::Connection::service(uint32_t events) {
  if ((events & EPOLLERR) != 0) return close();
  if (!move(side(kClient), side(kTarget)) || !move(side(kTarget), side(kClient))) return close();
  if (side(kClient).shut && side(kTarget).shut) return close();
  watch(kClient);
  watch(kTarget);
}

// As much as goes without waiting; false when the connection is broken.
bool TcpRelay::Connection::move(Side& from, Side& to) {
  if (!from.ended && from.end == 0) {
    const ssize_t got = recv(from.fd.get(), from.buffer.data(), from.buffer.size(), 0);
    if (got < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (got == 0) from.ended = true;
    if (got > 0) from.end = static_cast<size_t>(got);
  }
  while (from.begin < from.end) {
    const ssize_t put =
        send(to.fd.get(), from.buffer.data() + from.begin, from.end - from.begin, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) return true;
    if (put < 0) return false;
    from.begin += static_cast<size_t>(put);
  }
  from.begin = from.end = 0;
  if (from.ended && !from.shut) {
    shutdown(to.fd.get(), SHUT_WR);
    from.shut = true;
  }
  return true;
}

void TcpRelay::Connection::watch(Which which) {
  Side& mine = side(which);
  if (!loop_.watches(mine.fd.get())) return;
  // Ended and shut, the kernel would report a hang-up for ever.
  if (mine.ended && other(which).shut) return loop_.remove(mine.fd.get());
  uint32_t wanted = 0;
  if (!mine.ended && mine.end == 0) wanted |= EPOLLIN;
  if (other(which).end != 0) wanted |= EPOLLOUT;
  if (wanted != mine.watched) loop_.modify(mine.fd.get(), wanted);
  mine.watched = wanted;
}

TcpRelay::TcpRelay(EventLoop& loop, Fd listener, TargetFunction target, RelayLimits limits)
    : loop_(loop), listener_(std::move(listener)), target_(std::move(target)), limits_(limits) {
  setNonBlocking(listener_.get());
  listenAgain();
}

TcpRelay::~TcpRelay() {
  pauseListening();
  if (retry_) loop_.cancel(*retry_);
  connections_.clear();
}

void TcpRelay::listenAgain() {
  if (listening_) return;
  loop_.add(listener_.get(), EPOLLIN, [this](uint32_t) { acceptAll(); });
  listening_ = true;
}

void TcpRelay::pauseListening() {
  if (listening_) loop_.remove(listener_.get());
  listening_ = false;
}

void TcpRelay::acceptAll() {
  while (connections_.size() < limits_.connections) {
    Fd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      log::warning(std::string("accept a connection to a published port: ") +
                   sysError("accept").what());
      pauseListening();
      retry_ = loop_.after(kAcceptRetry, [this] {
        retry_.reset();
        listenAgain();
      });
      return;
    }
    connections_.push_back(std::make_unique<Connection>(*this, std::move(client)));
  }
  pauseListening();
}

void TcpRelay::remove(Connection* connection) {
  connections_.remove_if([&](const auto& each) { return each.get() == connection; });
  if (!retry_) listenAgain();
}

}  // namespace hull::engine
