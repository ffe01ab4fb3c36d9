#include "registry/server/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "registry/server/range.h"

namespace hull::registry {

namespace {

constexpr int kBacklog = 256;
constexpr std::string_view kBusy =
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n";

std::string addressText(const sockaddr_storage& address, socklen_t size) {
  if (address.ss_family == AF_UNIX) return "local";
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port,
                  sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  const bool v6 = address.ss_family == AF_INET6;
  return (v6 ? "[" : "") + std::string(host) + (v6 ? "]:" : ":") + port;
}

// Short however deep the folder: sun_path holds 108 bytes only.
sockaddr_un pathAddress(const Fd& folder, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = "/proc/self/fd/" + std::to_string(folder.get()) + "/" + name;
  if (path.size() >= sizeof address.sun_path) {
    throw Error(ErrorKind::kInternal, "the name of a socket is too long");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

Fd listenOn(const std::string& listen_at) {
  const size_t colon = listen_at.rfind(':');
  if (colon == std::string::npos || colon + 1 == listen_at.size()) {
    throw Error(ErrorKind::kInvalidArgument,
                "listen on \"" + listen_at + "\": expected ADDRESS:PORT, as in 127.0.0.1:5000");
  }
  const std::string port = listen_at.substr(colon + 1);
  if (const auto number = parseNumber(port); !number || *number > UINT16_MAX) {
    throw Error(ErrorKind::kInvalidArgument, "listen on " + listen_at + ": \"" + port +
                                                 "\" is no port (0 to 65535; 0: any free one)");
  }
  std::string host = listen_at.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  if (failed != 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "listen on " + listen_at + ": " + gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  Fd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) throw sysError("listen on " + listen_at);
  const int on = 1;
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.get(), found->ai_addr, found->ai_addrlen) < 0 ||
      ::listen(socket.get(), kBacklog) < 0) {
    const Error error = sysError("listen on " + listen_at);
    const bool in_use = errno == EADDRINUSE;
    throw Error(error.kind(),
                std::string(error.what()) +
                    (in_use ? " (stop what uses it, or choose another --listen)" : ""));
  }
  setNonBlocking(socket.get());
  return socket;
}

Fd listenOnPath(const std::string& folder, const std::string& name) {
  const Fd at = openFile(folder, O_RDONLY | O_DIRECTORY);
  const sockaddr_un address = pathAddress(at, name);
  ::unlinkat(at.get(), name.c_str(), 0);  // the folder is locked: nobody listens on it
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::fchmod(socket.get(), 0600) < 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(socket.get(), kBacklog) < 0) {
    throw sysError("listen on " + folder + "/" + name);
  }
  setNonBlocking(socket.get());
  return socket;
}

Fd connectToPath(const std::string& folder, const std::string& name) {
  const Fd at = openFile(folder, O_RDONLY | O_DIRECTORY);
  const sockaddr_un address = pathAddress(at, name);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    throw sysError("connect to " + folder + "/" + name);
  }
  return socket;
}

Acceptor::Acceptor(Fd listener, size_t max_connections, Serve serve)
    : listener_(std::move(listener)),
      wakeup_(::eventfd(0, EFD_CLOEXEC)),
      max_connections_(max_connections),
      serve_(std::move(serve)) {
  if (!wakeup_) throw sysError("create eventfd");
  thread_ = std::thread([this] { acceptLoop(); });
}

Acceptor::~Acceptor() {
  stopping_ = true;
  const uint64_t one = 1;
  writeFull(wakeup_.get(), std::as_bytes(std::span(&one, 1)));
  thread_.join();
  std::unique_lock lock(mutex_);
  for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
  ended_.wait(lock, [this] { return running_ == 0; });
}

uint16_t Acceptor::port() const {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  if (bound.ss_family == AF_UNIX) return 0;
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

std::string Acceptor::address() const {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  return addressText(bound, size);
}

size_t Acceptor::connections() const {
  const std::lock_guard lock(mutex_);
  return running_;
}

void Acceptor::acceptLoop() {
  while (!stopping_) {
    pollfd entries[] = {{listener_.get(), POLLIN, 0}, {wakeup_.get(), POLLIN, 0}};
    if (::poll(entries, 2, -1) > 0 && entries[0].revents) acceptOne();
  }
}

void Acceptor::acceptOne() {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  Fd socket(::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      log::warning("accept: " + std::string(sysError("out of resources").what()));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // or the loop would spin
    }
    return;
  }
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int fd = socket.get();
  {
    const std::lock_guard lock(mutex_);
    if (running_ >= max_connections_) {
      [[maybe_unused]] const ssize_t sent =
          ::send(fd, kBusy.data(), kBusy.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      return;
    }
    ++running_;
    connections_.insert(fd);
  }
  try {
    std::thread([this, moved = std::move(socket), from = addressText(peer, size)]() mutable {
      run(std::move(moved), from);
    }).detach();
  } catch (const std::exception& error) {
    log::warning(std::string("start thread: ") + error.what());
    leave(fd);
  }
}

void Acceptor::run(Fd socket, const std::string& peer) {
  sigset_t broken_pipe;  // sendfile(2) and TLS know no MSG_NOSIGNAL
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  try {
    serve_(socket.get(), peer);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kTimeout) log::info(peer + " " + error.what());
  } catch (const std::exception& error) {
    log::warning(peer + " " + error.what());
  }
  leave(socket.get());  // before it is closed: its number may be taken anew
}

void Acceptor::leave(int fd) {
  const std::lock_guard lock(mutex_);
  connections_.erase(fd);
  --running_;
  ended_.notify_all();
}

}  // namespace hull::registry
