// The supervisor: owns QEMU and the channel to the agent, relays the engine's socket, serves the
// client's requests on the control socket (one JSON line each: {"status":{}}, {"stop":{}},
// {"exec":{…}}). One event loop, one thread, one process per machine.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/descriptor_limit.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/subprocess.h"
#include "machine/agent.h"
#include "machine/config.h"
#include "machine/console_log.h"
#include "machine/host_share.h"
#include "machine/lock.h"
#include "machine/machine.h"
#include "machine/mux.h"
#include "machine/ports.h"
#include "machine/relay.h"

namespace hull::machine {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPingInterval{100};
constexpr milliseconds kClockInterval{60'000};
constexpr milliseconds kPowerOffTime{20'000};
constexpr size_t kMaxControlBytes = kMaxPayloadBytes;
constexpr int kBacklog = 1024;
constexpr std::string_view kPing = "GET /_ping HTTP/1.0\r\nHost: hull\r\n\r\n";

std::string engineTarget() {
  return std::string("unix:") + kEngineSocketInside;
}

// A stream whose answer nobody waits for.
class NoEvents final : public StreamEvents {
 public:
  void onData(std::string_view) override {}
  void onFin() override {}
  void onClosed(bool) override {}
  void onWritable() override {}
};

// Asks the engine for a sign of life; tells once.
class Ping final : public StreamEvents {
 public:
  explicit Ping(std::function<void(bool)> done) : done_(std::move(done)) {}
  void onData(std::string_view bytes) override { tell(bytes.starts_with("HTTP/1.")); }
  void onFin() override { tell(false); }
  void onClosed(bool) override { tell(false); }
  void onWritable() override {}

 private:
  void tell(bool alive) {
    if (auto done = std::exchange(done_, nullptr)) done(alive);
  }
  std::function<void(bool)> done_;
};

class Supervisor {
 public:
  Supervisor(const MachinePaths& paths, Fd lock)
      : paths_(paths),
        lock_(std::move(lock)),
        config_(loadConfig(paths)),
        console_(paths.consoleLog()),
        started_at_(::time(nullptr)) {
    if (ftruncate(lock_.get(), 0) < 0) throw sysError("write " + paths.supervisorLock());
    writeFull(lock_.get(), std::to_string(getpid()) + "\n");
    watchSignals();
    startQemu();
    engine_listener_ = listenUnix(paths.engineSocket(), 0600, kBacklog);
    control_listener_ = listenUnix(paths.controlSocket(), 0600, kBacklog);
    setNonBlocking(engine_listener_.get());
    setNonBlocking(control_listener_.get());
    loop_.add(control_listener_.get(), EPOLLIN, [this](uint32_t) { acceptControl(); });
  }

  ~Supervisor() {
    ::unlink(paths_.engineSocket().c_str());
    ::unlink(paths_.controlSocket().c_str());
  }

  int run() {
    loop_.run();
    mux_.reset();
    return exit_status_;
  }

 private:
  void watchSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    signals_.reset(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_) throw sysError("watch for signals");
    loop_.add(signals_.get(), EPOLLIN, [this](uint32_t) {
      signalfd_siginfo info;
      while (::read(signals_.get(), &info, sizeof info) > 0) {
      }
      powerOff();
    });
  }

  void startQemu() {
    // An emulator whose supervisor was killed dies at once, but not in no time.
    const Fd lock = lockFile(paths_.emulatorLock(), [] {
      log::info("waiting for the emulator of a supervisor that died");
    });
    FdPair channel = makeSocketPair(SOCK_STREAM), console = makeSocketPair(SOCK_STREAM),
           log = makeSocketPair(SOCK_STREAM), errors = makePipe();
    SubprocessOptions options;
    // The emulator must not outlive its supervisor, whatever ends that.
    options.arguments = {"setpriv", "--pdeathsig", "KILL"};
    if (share_works_) {
      auto share = HostShare::start(paths_, config_.payload_directory, STDERR_FILENO);
      if (share) share_.emplace(std::move(*share));
    }
    const auto qemu = qemuArguments(paths_, config_, share_.has_value());
    options.arguments.insert(options.arguments.end(), qemu.begin(), qemu.end());
    options.descriptors = {{channel.second.get(), kQemuChannelFd},
                           {console.second.get(), kQemuConsoleFd},
                           {log.second.get(), kQemuLogFd},
                           {lock.get(), kQemuLockFd},
                           {errors.second.get(), 2}};
    if (share_) options.descriptors.emplace_back(share_->connection().get(), kQemuShareFd);
    options.working_directory = "/";
    qemu_.emplace(options);
    if (share_) share_->connection().reset();  // it ends with the emulator
    loop_.add(qemu_->pidfd(), EPOLLIN, [this](uint32_t) { onQemuExit(); });
    for (Fd* from : {&console.first, &log.first, &errors.first}) collect(std::move(*from));
    mux_.emplace(
        loop_, std::move(channel.first), Mux::Side::kHost,
        [this](uint32_t stream, std::string_view target) { return serve(stream, target); },
        [this](const std::string& reason) {
          // Its end follows; a machine whose agent talks nonsense is ended here.
          if (!stopping_) log::error("the channel to the machine broke: " + reason);
          qemu_->kill(SIGKILL);
        });
  }

  // Console text into the log.
  void collect(Fd from) {
    setNonBlocking(from.get());
    auto shared = std::make_shared<Fd>(std::move(from));
    loop_.add(shared->get(), EPOLLIN, [this, shared](uint32_t) {
      std::array<char, 16384> buffer;
      const ssize_t got = ::read(shared->get(), buffer.data(), buffer.size());
      if (got > 0) return console_.write({buffer.data(), static_cast<size_t>(got)});
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
      loop_.remove(shared->get());
    });
  }

  void onQemuExit() {
    loop_.remove(qemu_->pidfd());
    const int status = qemu_->wait();
    if (!stopping_ && phase_ == MachinePhase::kBooting && share_ && share_->ended()) {
      log::warning(
          "virtiofsd does not work here: the machine starts again without this host's files");
      share_works_ = false;
      share_.reset();
      return startQemu();
    }
    if (!stopping_) {
      log::error("the emulator ended by itself with status " + std::to_string(status));
      exit_status_ = 1;
    }
    // What it wrote last is still in the pipes.
    loop_.after(milliseconds(50), [this] { loop_.stop(); });
  }

  std::shared_ptr<StreamEvents> serve(uint32_t stream, std::string_view target) {
    if (target == "publish") return servePublish(loop_, *mux_, stream);
    if (target.starts_with("hello:")) onHello(target.substr(6));
    return nullptr;  // a hello needs no answer
  }

  void onHello(std::string_view text) {
    if (phase_ != MachinePhase::kBooting) return;
    const auto json = nlohmann::json::parse(text, nullptr, false);
    const bool has_engine = json.is_object() && json.contains("engine") &&
                            json["engine"].is_boolean() && json["engine"].get<bool>();
    phase_ = MachinePhase::kAgentUp;
    // Not from within the mux's own reading.
    loop_.after(milliseconds(0), [this, has_engine] {
      setClock();
      if (has_engine) {
        ping();
      } else {
        ready();
      }
    });
  }

  void setClock() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const int64_t nanoseconds = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    mux_->open("clock:" + std::to_string(nanoseconds), std::make_shared<NoEvents>());
    loop_.after(kClockInterval, [this] { setClock(); });
  }

  void ping() {
    const auto id = std::make_shared<uint32_t>(0);
    auto again = [this, id](bool alive) {
      loop_.after(alive ? milliseconds(0) : kPingInterval, [this, id, alive] {
        mux_->reset(*id);
        if (alive) {
          engine_ = true;
          ready();
        } else if (!stopping_) {
          ping();
        }
      });
    };
    *id = mux_->open(engineTarget(), std::make_shared<Ping>(again));
    mux_->send(*id, kPing);
  }

  // Clients of the engine that came early have waited in the listener's queue.
  void ready() {
    phase_ = MachinePhase::kReady;
    loop_.add(engine_listener_.get(), EPOLLIN, [this](uint32_t) { acceptEngine(); });
  }

  Fd acceptFrom(const Fd& listener) {
    Fd client(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client || (errno != EMFILE && errno != ENFILE && errno != ENOMEM)) return client;
    // Level-triggered: without a pause this would spin until a descriptor is free.
    log::warning("no descriptors left; connections wait");
    const int fd = listener.get();
    loop_.modify(fd, 0);
    loop_.after(milliseconds(100), [this, fd] { loop_.modify(fd, EPOLLIN); });
    return client;
  }

  void acceptEngine() {
    Fd client = acceptFrom(engine_listener_);
    if (client) Relay::open(loop_, *mux_, engineTarget(), std::move(client));
  }

  struct Control {
    Fd socket;
    std::string line;
  };

  void acceptControl() {
    Fd client = acceptFrom(control_listener_);
    if (!client) return;
    auto control = std::make_shared<Control>(Control{std::move(client), {}});
    loop_.add(control->socket.get(), EPOLLIN, [this, control](uint32_t) { onControl(*control); });
  }

  void onControl(Control& control) {
    std::array<char, 8192> buffer;
    const ssize_t got = ::read(control.socket.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) control.line.append(buffer.data(), static_cast<size_t>(got));
    const size_t end = control.line.find('\n');
    const bool complete = end != std::string::npos;
    if (!complete && got > 0 && control.line.size() <= kMaxControlBytes) return;
    loop_.remove(control.socket.get());
    if (complete) {
      request(control.line.substr(0, end), control.line.substr(end + 1), std::move(control.socket));
    }
    control.socket.reset();
  }

  void request(const std::string& line, const std::string& rest, Fd socket) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) return;
    if (json.contains("exec") && phase_ != MachinePhase::kBooting) {
      Relay::open(loop_, *mux_, "exec:" + json["exec"].dump(), std::move(socket), rest);
    } else if (json.contains("status")) {
      reply(socket, {{"phase", toString(phase_)},
                     {"engine", engine_},
                     {"memoryMib", config_.memory_mib},
                     {"connections", mux_->streams()},
                     {"startedAt", started_at_}});
    } else if (json.contains("stop")) {
      reply(socket, {{"ok", true}});
      powerOff();
    }
  }

  static void reply(const Fd& socket, const nlohmann::json& message) {
    const std::string line = message.dump() + "\n";
    ::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL);
  }

  void powerOff() {
    if (std::exchange(stopping_, true)) return;
    if (phase_ == MachinePhase::kBooting) return qemu_->kill(SIGKILL);
    mux_->open("poweroff", std::make_shared<NoEvents>());
    loop_.after(kPowerOffTime, [this] {
      log::warning("the machine did not power off in time; it is ended");
      qemu_->kill(SIGKILL);
    });
  }

  MachinePaths paths_;
  Fd lock_;
  MachineConfig config_;
  ConsoleLog console_;
  int64_t started_at_;
  EventLoop loop_;
  Fd signals_, engine_listener_, control_listener_;
  std::optional<HostShare> share_;
  bool share_works_ = true;
  std::optional<Subprocess> qemu_;
  std::optional<Mux> mux_;
  MachinePhase phase_ = MachinePhase::kBooting;
  bool engine_ = false;
  bool stopping_ = false;
  int exit_status_ = 0;
};

}  // namespace

int supervise(const MachinePaths& paths) {
  log::setPart("machine");
  signal(SIGPIPE, SIG_IGN);
  raiseDescriptorLimit();  // one for each stream
  signal(SIGHUP, SIG_IGN);
  try {
    Fd lock = tryLockFile(paths.supervisorLock());
    if (!lock) {
      throw Error(ErrorKind::kConflict, "start the machine: it is running in " + paths.state);
    }
    return Supervisor(paths, std::move(lock)).run();
  } catch (const Error& error) {
    log::error(error.what());
    return 1;
  }
}

}  // namespace hull::machine
