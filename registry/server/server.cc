#include "registry/server/server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "registry/server/api.h"
#include "registry/server/connection.h"

namespace hull::registry {

namespace {

constexpr int kBacklog = 256;
constexpr std::chrono::minutes kSweepInterval{30};
constexpr size_t kMaxHtpasswdBytes = 1 << 20;
constexpr std::string_view kBusy =
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n";

std::string addressText(const sockaddr_storage& address, socklen_t size) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port,
                  sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  const bool v6 = address.ss_family == AF_INET6;
  return (v6 ? "[" : "") + std::string(host) + (v6 ? "]:" : ":") + port;
}

Fd listenOn(const std::string& listen_at) {
  const size_t colon = listen_at.rfind(':');
  if (colon == std::string::npos || colon + 1 == listen_at.size()) {
    throw Error(ErrorKind::kInvalidArgument,
                "listen on \"" + listen_at + "\": expected ADDRESS:PORT, as in 127.0.0.1:5000");
  }
  std::string host = listen_at.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                 listen_at.substr(colon + 1).c_str(), &hints, &found);
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

std::unique_ptr<Passwords> readPasswords(const std::string& path) {
  if (path.empty()) return nullptr;
  return std::make_unique<Passwords>(readFile(path, kMaxHtpasswdBytes));
}

std::unique_ptr<TlsContext> readTls(const ServerOptions& options) {
  if (options.tls_certificate.empty() && options.tls_key.empty()) return nullptr;
  if (options.tls_certificate.empty() || options.tls_key.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "TLS needs both a certificate and a key (--tls-cert, --tls-key)");
  }
  return std::make_unique<TlsContext>(options.tls_certificate, options.tls_key);
}

}  // namespace

struct Server::State {
  explicit State(const ServerOptions& options)
      : tls(readTls(options)),
        passwords(readPasswords(options.htpasswd)),
        listener(listenOn(options.listen)),
        wakeup(::eventfd(0, EFD_CLOEXEC)),
        store(options.root),
        uploads(store),
        api(store, uploads, passwords.get(), {options.read_only, options.allow_delete}) {
    if (!wakeup) throw sysError("create eventfd");
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    address = addressText(bound, size);
    port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(bound).sin_port);
    acceptor = std::thread([this] { acceptLoop(); });
  }

  ~State() {
    stopping = true;
    const uint64_t one = 1;
    writeFull(wakeup.get(), std::as_bytes(std::span(&one, 1)));
    acceptor.join();
    std::unique_lock lock(mutex);
    for (const int fd : connections) ::shutdown(fd, SHUT_RDWR);
    ended.wait(lock, [this] { return running == 0; });
  }

  void acceptLoop() {
    auto next_sweep = std::chrono::steady_clock::now() + kSweepInterval;
    while (!stopping) {
      pollfd entries[] = {{listener.get(), POLLIN, 0}, {wakeup.get(), POLLIN, 0}};
      const auto wait = std::chrono::milliseconds(kSweepInterval).count();
      if (::poll(entries, 2, static_cast<int>(wait)) > 0 && entries[0].revents) acceptOne();
      if (std::chrono::steady_clock::now() < next_sweep) continue;
      next_sweep = std::chrono::steady_clock::now() + kSweepInterval;
      if (const size_t swept = uploads.sweep()) {
        log::info("swept " + std::to_string(swept) + " expired uploads");
      }
    }
  }

  void acceptOne() {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    Fd socket(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
    if (!socket) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
        log::warning("accept: " + std::string(sysError("out of resources").what()));
        std::this_thread::sleep_for(std::chrono::milliseconds(100));  // or the loop would spin
      }
      return;
    }
    const int on = 1;
    setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    {
      const std::lock_guard lock(mutex);
      if (running >= kMaxConnections) {
        [[maybe_unused]] const ssize_t sent =
            ::send(socket.get(), kBusy.data(), kBusy.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
      }
      ++running;
      connections.insert(socket.get());
    }
    const int fd = socket.get();
    try {
      std::thread([this, moved = std::move(socket), from = addressText(peer, size)]() mutable {
        serve(std::move(moved), from);
      }).detach();
    } catch (const std::exception& error) {
      log::warning(std::string("start thread: ") + error.what());
      leave(fd);
    }
  }

  void serve(Fd socket, const std::string& peer) {
    sigset_t broken_pipe;  // sendfile(2) and TLS know no MSG_NOSIGNAL
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
    try {
      const auto transport = tls ? makeTlsTransport(socket.get(), kIdleLimit, *tls)
                                 : makePlainTransport(socket.get(), kIdleLimit);
      serveConnection(*transport, peer, [this](Request& request) { return api.handle(request); });
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kTimeout) log::info(peer + " " + error.what());
    } catch (const std::exception& error) {
      log::warning(peer + " " + error.what());
    }
    leave(socket.get());  // before it is closed: its number may be taken anew
  }

  void leave(int fd) {
    const std::lock_guard lock(mutex);
    connections.erase(fd);
    --running;
    ended.notify_all();
  }

  std::unique_ptr<TlsContext> tls;
  std::unique_ptr<Passwords> passwords;
  Fd listener;
  Fd wakeup;
  RepositoryStore store;
  Uploads uploads;
  Api api;
  std::string address;
  uint16_t port = 0;
  std::atomic<bool> stopping = false;
  std::mutex mutex;
  std::condition_variable ended;
  std::set<int> connections;  // guarded by mutex
  size_t running = 0;         // guarded by mutex
  std::thread acceptor;
};

Server::Server(const ServerOptions& options) : state_(std::make_unique<State>(options)) {}
Server::~Server() = default;

uint16_t Server::port() const {
  return state_->port;
}

std::string Server::address() const {
  return state_->address;
}

}  // namespace hull::registry
