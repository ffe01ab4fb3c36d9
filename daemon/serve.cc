#include "daemon/serve.h"

#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/api/handlers.h"

namespace hull::engine {

namespace {

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

bool answers(const std::string& path) {
  try {
    connectUnix(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

gid_t groupOf(const std::string& wanted) {
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
  makeDirectories(std::filesystem::path(path).parent_path().string(), 0755);
  if (answers(path)) {
    throw Error(ErrorKind::kConflict,
                "listen on " + path + ": another engine answers there; stop that one first");
  }
  unlink(path.c_str());
  Fd listener = listenUnix(path, 0660);
  if (owner_group != static_cast<gid_t>(-1) &&
      chown(path.c_str(), static_cast<uid_t>(-1), owner_group) != 0) {
    log::warning("give " + path + " to its group: " + sysError("chown").what());
  }
  return listener;
}

}  // namespace

std::string defaultSocket() {
  if (geteuid() == 0) return "/run/hull/hulld.sock";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime && *runtime) return std::string(runtime) + "/hull/hulld.sock";
  return "/tmp/hull-" + std::to_string(geteuid()) + "/hulld.sock";
}

void blockSignals() {
  const sigset_t set = endSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void serve(const ServeOptions& options, const std::function<std::unique_ptr<Engine>()>& make) {
  // The engine first: its lock tells a second one apart before it touches the sockets.
  const auto engine = make();
  std::vector<Fd> listeners = passedSockets();
  std::vector<std::string> paths = options.sockets;
  if (paths.empty() && listeners.empty()) paths.push_back(defaultSocket());
  const gid_t owner_group = groupOf(options.group);
  for (const std::string& path : paths) {
    listeners.push_back(listenOn(path, owner_group));
    log::info("listening on " + path);
  }
  const api::Router router = api::makeRouter(*engine);
  api::HttpServer server(std::move(listeners),
                         [&](api::Exchange& exchange) { router.dispatch(exchange); });
  std::thread serving([&] { server.run(); });
  for (;;) {
    const sigset_t set = endSignals();
    int number = 0;
    sigwait(&set, &number);
    if (number != SIGHUP) break;
  }
  log::info(engine->options().stop_containers ? "stopping: containers are stopped"
                                              : "stopping: containers run on");
  // Attached clients and waits end with their connections; the engine then lets go of the VMs.
  server.stop();
  serving.join();
  engine->shutdown();
  for (const std::string& path : paths) unlink(path.c_str());
}

}  // namespace hull::engine
