#include "daemon/serve.h"

#include <grp.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/engine_paths.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/tls.h"
#include "daemon/api/handlers.h"
#include "daemon/api/metrics.h"

namespace hull::engine {

namespace {

namespace fs = std::filesystem;

constexpr int kFirstPassedFd = 3;  // sd_listen_fds(3)
constexpr int kMaxPassedFds = 16;

sigset_t endSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  return set;
}

// Sockets that systemd made.
std::vector<Fd> passedSockets() {
  std::vector<Fd> sockets;
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (!pid || !count || std::atoi(pid) != getpid()) return sockets;
  const int number = std::min(std::atoi(count), kMaxPassedFds);
  for (int i = 0; i < number; ++i) {
    Fd passed(kFirstPassedFd + i);
    sockets.push_back(passed.duplicate());  // CLOEXEC
  }
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  return sockets;
}

// Empty for what is none of a unix socket.
std::string pathOf(const Fd& listener) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      address.sun_family != AF_UNIX) {
    return {};
  }
  return {address.sun_path, strnlen(address.sun_path, sizeof address.sun_path)};
}

// sd_notify(3): systemd learns that clients and dependent units may come.
void tellSystemd(const char* text) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (!path || (*path != '/' && *path != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string_view name(path);
  if (name.size() >= sizeof address.sun_path) return;
  name.copy(address.sun_path, name.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const Fd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  if (socket_fd) {
    sendto(socket_fd.get(), text, std::string_view(text).size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), size);
  }
}

bool answers(const std::string& path) {
  try {
    connectUnix(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

gid_t groupOf(const std::string& wanted) {
  if (wanted.empty() && geteuid() != 0) return static_cast<gid_t>(-1);  // the user's alone
  const std::vector<std::string> names =
      wanted.empty() ? std::vector<std::string>{"hull", "docker"} : std::vector{wanted};
  for (const std::string& name : names) {
    if (const group* found = getgrnam(name.c_str())) return found->gr_gid;
  }
  if (!wanted.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "no group " + wanted + " (make it with groupadd)");
  }
  return static_cast<gid_t>(-1);
}

// Whoever may write to the socket rules the engine: its owner and one group, no one else.
Fd listenOn(const std::string& path, gid_t owner_group) {
  makeDirectories(fs::path(path).parent_path().string(), 0755);
  if (answers(path)) {
    throw Error(ErrorKind::kConflict,
                "listen on " + path + ": another engine answers there; stop that one first");
  }
  unlink(path.c_str());
  const bool has_group = owner_group != static_cast<gid_t>(-1);
  Fd listener = listenUnix(path, has_group || geteuid() == 0 ? 0660 : 0600);
  if (has_group && chown(path.c_str(), static_cast<uid_t>(-1), owner_group) != 0) {
    log::warning("give " + path + " to its group: " + sysError("chown").what());
  }
  return listener;
}

ino_t inodeOf(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

}  // namespace

namespace {

struct AddressParts {
  std::string host, port;
};

AddressParts splitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    throw Error(ErrorKind::kInvalidArgument,
                "listen on \"" + address + "\": expected host:port, like 127.0.0.1:2376");
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return {host, address.substr(colon + 1)};
}

Fd listenTcp(const std::string& address) {
  const auto [host, port] = splitAddress(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  if (failed != 0) {
    throw Error(ErrorKind::kInvalidArgument, "listen on " + address + ": " + gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(found, freeaddrinfo);
  Fd listener(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  if (!listener || setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(listener.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    throw sysError("listen on " + address);
  }
  return listener;
}

// "address:port" that the kernel chose.
std::string boundAddress(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host.data(), host.size(),
                  port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "?";
  }
  return std::string(host.data()) + ":" + port.data();
}

// Whoever reaches the engine is root on this host: TCP without a client's certificate is refused.
void addTcpListeners(const ServeOptions& options, api::HttpServer& server) {
  if (options.tcp_addresses.empty()) return;
  if (options.tls_folder.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "listen on tcp://" + options.tcp_addresses.front() +
                    ": only with mutual TLS, because whoever reaches the engine rules this host "
                    "(name the folder of ca.pem, cert.pem and key.pem with --tls, or use ssh://)");
  }
  const auto identity = std::make_shared<const TlsIdentity>(TlsIdentity::Role::kServer,
                                                            tlsFilesIn(options.tls_folder));
  for (const std::string& address : options.tcp_addresses) {
    Fd listener = listenTcp(address);
    log::info("listening on tcp://" + boundAddress(listener.get()) + " with mutual TLS");
    server.addListener(std::move(listener), [identity](Fd accepted) {
      setNonBlocking(accepted.get());
      return identity->tunnel(std::move(accepted));
    });
  }
}

// The metrics' own server: it has no other paths.
class MetricsServer {
 public:
  MetricsServer(Engine& engine, const std::string& address)
      : router_(api::makeMetricsRouter(engine)),
        server_({}, [this](api::Exchange& exchange) { router_.dispatch(exchange); }) {
    Fd listener = listenTcp(address);
    log::info("metrics at http://" + boundAddress(listener.get()) + "/metrics");
    server_.addListener(std::move(listener), {});
    thread_ = std::thread([this] { server_.run(); });
  }
  ~MetricsServer() {
    server_.stop();
    thread_.join();
  }
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

 private:
  api::Router router_;
  api::HttpServer server_;
  std::thread thread_;
};

}  // namespace

void blockSignals() {
  const sigset_t set = endSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void serve(const ServeOptions& options, const MakeEngine& make) {
  std::vector<Fd> listeners = passedSockets();
  std::vector<std::string> paths = options.sockets;
  if (paths.empty() && listeners.empty()) paths.push_back(engineSocket());
  std::vector<std::string> names = options.other_names;
  for (const std::string& path : paths) names.push_back(fs::absolute(path).string());
  for (const Fd& passed : listeners) names.push_back(pathOf(passed));
  // The engine first: its lock tells a second one apart before it touches the sockets.
  const auto engine = make(names);
  const gid_t owner_group = groupOf(options.group);
  // Another engine may have replaced one at the end.
  std::vector<std::pair<std::string, ino_t>> made;
  for (const std::string& path : paths) {
    listeners.push_back(listenOn(path, owner_group));
    made.emplace_back(path, inodeOf(path));
    log::info("listening on " + path);
  }
  api::Router router = api::makeRouter(*engine);
  router.onAnswered(
      [](int status, std::chrono::nanoseconds took) { api::requestCounts().count(status, took); });
  api::HttpServer server(std::move(listeners),
                         [&](api::Exchange& exchange) { router.dispatch(exchange); });
  engine->door().open([&server](Fd connection, std::shared_ptr<void> place) {
    server.serve(std::move(connection), std::move(place));
  });
  addTcpListeners(options, server);
  std::unique_ptr<MetricsServer> metrics;
  if (!options.metrics_address.empty()) {
    metrics = std::make_unique<MetricsServer>(*engine, options.metrics_address);
  }
  std::thread serving([&] { server.run(); });
  tellSystemd("READY=1\n");
  for (;;) {
    const sigset_t set = endSignals();
    int number = 0;
    sigwait(&set, &number);
    if (number != SIGHUP) break;
  }
  log::info(engine->options().stop_containers ? "stopping: containers are stopped"
                                              : "stopping: containers run on");
  tellSystemd("STOPPING=1\n");
  // Attached clients and waits end with their connections; the engine then lets go of the VMs.
  engine->door().close();
  server.stop();
  serving.join();
  metrics.reset();
  engine->shutdown();
  for (const auto& [path, inode] : made) {
    if (inodeOf(path) == inode) unlink(path.c_str());
  }
}

}  // namespace hull::engine
