#include "daemon/network/tcp_relay.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

#include "base/error.h"
#include "base/joined_sockets.h"
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
  Connection(TcpRelay& relay, Fd client)
      : relay_(relay), loop_(relay.loop_), client_(std::move(client)) {
    if (relay.limits_.lifetime.count() > 0) {
      lifetime_ = loop_.after(relay.limits_.lifetime, [this] {
        lifetime_.reset();
        close();
      });
    }
    loop_.add(client_.get(), 0, [this](uint32_t) { close(); });  // the client has given up
    connectNext();
  }
  ~Connection() {
    for (const Fd* socket : {&client_, &target_}) {
      if (socket->valid()) loop_.remove(socket->get());
    }
    for (const auto& timer : {timeout_, lifetime_}) {
      if (timer) loop_.cancel(*timer);
    }
  }

 private:
  void close() { relay_.remove(this); }  // deletes this
  void connectNext();
  void connected();

  TcpRelay& relay_;
  EventLoop& loop_;
  Fd client_, target_;  // until they are joined
  std::optional<JoinedSockets> joined_;
  size_t attempts_ = 0;
  std::optional<EventLoop::TimerId> timeout_, lifetime_;
};

void TcpRelay::Connection::connectNext() {
  if (timeout_) loop_.cancel(*timeout_);
  timeout_.reset();
  if (target_.valid()) loop_.remove(target_.get());
  for (;;) {
    target_.reset();
    const auto address = relay_.target_(attempts_++);
    if (!address) {
      // Not from within the constructor: the relay does not know this connection yet.
      timeout_ = loop_.after(std::chrono::milliseconds(0), [this] {
        timeout_.reset();
        close();
      });
      return;
    }
    target_.reset(socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!target_) continue;
    if (connect(target_.get(), address->get(), address->length) == 0 || errno == EINPROGRESS) break;
  }
  timeout_ = loop_.after(relay_.limits_.connect_timeout, [this] {
    timeout_.reset();
    connectNext();
  });
  loop_.add(target_.get(), EPOLLOUT, [this](uint32_t) { connected(); });
}

void TcpRelay::Connection::connected() {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(target_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return connectNext();
  loop_.cancel(*timeout_);
  timeout_.reset();
  for (const Fd* each : {&client_, &target_}) {
    const int on = 1;
    setsockopt(each->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(each->get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    loop_.remove(each->get());
  }
  joined_.emplace(loop_, std::move(client_), std::move(target_), [this] { close(); });
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
