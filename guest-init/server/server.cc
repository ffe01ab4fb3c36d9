#include "guest-init/server/server.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "guest-init/system/log.h"
#include "guest-init/system/network.h"

namespace hull::guest {

namespace {

Failure failureOf(const std::exception& exception) {
  const auto* error = dynamic_cast<const Error*>(&exception);
  return {error ? failureCodeOf(error->kind()) : FailureCode::kOther, exception.what()};
}

// Ids become names of directories.
void checkContainerId(const std::string& id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
  if (id.empty() || id.front() == '.' || !plain) {
    throw Error(ErrorKind::kInvalidArgument, "create container: bad id");
  }
}

void setClock(int64_t nanoseconds) {
  constexpr int64_t kPerSecond = 1000000000;
  if (nanoseconds <= 0) return;
  const timespec now{nanoseconds / kPerSecond, nanoseconds % kPerSecond};
  if (clock_settime(CLOCK_REALTIME, &now) < 0) note(sysError("set clock").what());
}

}  // namespace

Server::Server(EventLoop& loop, Places places, Fd control_listener, Fd stream_listener,
               std::function<void()> powered_off)
    : loop_(loop),
      places_(std::move(places)),
      control_listener_(std::move(control_listener)),
      stream_listener_(std::move(stream_listener)),
      powered_off_(std::move(powered_off)),
      streams_(loop) {
  watchChildren();
  loop_.add(control_listener_.get(), EPOLLIN, [this](uint32_t) { acceptControl(); });
  loop_.add(stream_listener_.get(), EPOLLIN, [this](uint32_t) { acceptStream(); });
}

Server::~Server() {
  loop_.remove(control_listener_.get());
  loop_.remove(stream_listener_.get());
  loop_.remove(child_signals_.get());
}

void Server::watchChildren() {
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, nullptr);
  child_signals_.reset(signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!child_signals_) throw sysError("watch children");
  loop_.add(child_signals_.get(), EPOLLIN, [this](uint32_t) { reapChildren(); });
}

void Server::reapChildren() {
  signalfd_siginfo ignored;
  while (::read(child_signals_.get(), &ignored, sizeof ignored) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) break;
    if (const auto found = transfers_.find(pid); found != transfers_.end()) {
      const auto transfer = std::move(found->second);
      transfers_.erase(found);
      transfer->finish(status);
      continue;
    }
    const auto mine = [pid, status](auto& container) { return container->reaped(pid, status); };
    if (std::any_of(containers_.begin(), containers_.end(),
                    [&mine](auto& entry) { return mine(entry.second); })) {
      continue;
    }
    for (Dying& dying : dying_) {
      if (mine(dying.container)) break;
    }
  }
  buryDead();
}

void Server::acceptControl() {
  Fd socket(accept4(control_listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return;
  const uint64_t number = ++control_number_;
  control_ = std::make_unique<ControlConnection>(
      loop_, std::move(socket), [this](Frame frame) { handle(std::move(frame)); },
      [this, number] {
        loop_.post([this, number] {
          if (control_number_ == number) control_.reset();
        });
      });
}

void Server::acceptStream() {
  Fd socket(accept4(stream_listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket || streams_.full()) return;
  streams_.add([&](StreamDone done) {
    return std::make_unique<OpeningStream>(
        loop_, std::move(socket),
        [this](Fd opened, Frame frame) { openStream(std::move(opened), frame); }, std::move(done));
  });
}

void Server::reply(uint64_t connection, uint32_t request, const std::string& id, Message message) {
  if (control_ && control_number_ == connection) {
    control_->send({request, id, std::move(message)});
  }
}

void Server::handle(Frame frame) {
  const uint64_t connection = control_number_;
  std::optional<Message> answer;
  try {
    answer = perform(frame);
  } catch (const std::exception& error) {
    answer = failureOf(error);
  }
  if (answer) reply(connection, frame.request, frame.container, std::move(*answer));
}

std::optional<Message> Server::perform(const Frame& frame) {
  if (powering_off_) throw Error(ErrorKind::kConflict, "the machine is powering off");
  return std::visit([this, &frame](const auto& request) { return on(frame, request); },
                    frame.message);
}

template <typename Other>
std::optional<Message> Server::on(const Frame&, const Other&) {
  throw Error(ErrorKind::kInvalidArgument, "not a request of the control port");
}

Container& Server::container(const std::string& id) {
  const auto found = containers_.find(id);
  if (found == containers_.end()) {
    throw Error(ErrorKind::kNotFound, "container " + id + ": no such container");
  }
  return *found->second;
}

void Server::requireIdle(const Container& which, const char* operation) {
  which.requireStopped(operation);
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    const auto at = next++;
    if (at->second->container() != which.id()) continue;
    if (!at->second->ending()) {
      throw Error(ErrorKind::kConflict, std::string(operation) + ": a transfer is running");
    }
    int status = 0;
    waitpid(at->first, &status, 0);
    at->second->finish(status);
    transfers_.erase(at);
  }
}

std::optional<Message> Server::on(const Frame&, const Hello& request) {
  if (request.version != kProtocolVersion) {
    throw Error(ErrorKind::kInvalidArgument, "protocol version " + std::to_string(request.version) +
                                                 ": not supported, this is " +
                                                 std::to_string(kProtocolVersion));
  }
  setClock(request.wall_clock_ns);
  utsname name{};
  uname(&name);
  return HelloReply{kProtocolVersion, name.release};
}

std::optional<Message> Server::on(const Frame&, const ConfigureNetwork& request) {
  configureNetwork(request);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const WriteNameFiles& request) {
  container(frame.container).root().writeNameFiles(request.hosts, request.resolv_conf);
  return Ok{};
}

void Server::requireNew(const std::string& id) const {
  checkContainerId(id);
  if (containers_.contains(id)) {
    throw Error(ErrorKind::kConflict, "container " + id + ": exists already");
  }
  // The same places on disk: not before the former one has left them.
  const bool dying = std::any_of(dying_.begin(), dying_.end(),
                                 [&id](const Dying& one) { return one.container->id() == id; });
  if (dying) throw Error(ErrorKind::kConflict, "container " + id + ": is being removed");
  if (containers_.size() + dying_.size() + seats_.size() >= kMaxContainers) {
    throw Error(ErrorKind::kTooLarge, "create container: too many containers");
  }
}

std::optional<Message> Server::on(const Frame& frame, const PrepareSeat& request) {
  seats_.erase(frame.container);  // of an engine that has gone meanwhile
  requireNew(frame.container);
  container(request.host);  // must exist
  seats_.emplace(frame.container, Seat(request));
  attachSeat(frame.container, control_number_, frame.request,
             EventLoop::Clock::now() + kGrowthPatience);
  return std::nullopt;
}

// Answers once the disk has grown: its driver is told by an interrupt of its own.
void Server::attachSeat(const std::string& id, uint64_t connection, uint32_t request,
                        Deadline deadline) {
  const auto found = seats_.find(id);
  try {
    if (found == seats_.end()) throw Error(ErrorKind::kConflict, "prepare seat: it was removed");
    if (!found->second.diskIsLargeEnough()) {
      if (EventLoop::Clock::now() >= deadline) {
        throw Error(ErrorKind::kTimeout, "prepare seat: the disk does not grow");
      }
      loop_.after(kGrowthPause, [this, id, connection, request, deadline] {
        attachSeat(id, connection, request, deadline);
      });
      return;
    }
    found->second.attach();
    reply(connection, request, id, found->second.reply());
  } catch (const std::exception& error) {
    if (found != seats_.end()) seats_.erase(found);
    reply(connection, request, id, failureOf(error));
  }
}

std::optional<Message> Server::on(const Frame& frame, const CreateContainer& request) {
  requireNew(frame.container);
  Seat seat;
  if (auto prepared = seats_.extract(frame.container)) seat = std::move(prepared.mapped());
  containers_[frame.container] = std::make_unique<Container>(
      loop_, places_, frame.container, std::move(seat), request,
      [this](const Container& which, const ProcessExited& event) { exited(which, event); });
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const StartProcess& request) {
  for (const auto& [pid, transfer] : transfers_) {
    if (transfer->container() == frame.container && transfer->writesLayer()) {
      throw Error(ErrorKind::kConflict, "start process: a layer is being written");
    }
  }
  container(frame.container)
      .start(request,
             [this, connection = control_number_, number = frame.request, id = frame.container](
                 Message message) { reply(connection, number, id, std::move(message)); });
  return std::nullopt;
}

std::optional<Message> Server::on(const Frame& frame, const SignalProcess& request) {
  container(frame.container).signal(request);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const ResizeTerminal& request) {
  container(frame.container).resize(request);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const ForgetProcess& request) {
  container(frame.container).forget(request.process);
  return Ok{};
}

std::optional<Message> Server::on(const Frame&, const ListState&) {
  StateReply state;
  for (const auto& [id, which] : containers_) state.containers.push_back(which->state());
  return state;
}

std::optional<Message> Server::on(const Frame& frame, const ListProcesses&) {
  return container(frame.container).listProcesses();
}

std::optional<Message> Server::on(const Frame& frame, const SetLimits& request) {
  container(frame.container).setLimits(request);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const ReadUsage&) {
  return container(frame.container).usage();
}

std::optional<Message> Server::on(const Frame& frame, const SealLayer&) {
  Container& which = container(frame.container);
  requireIdle(which, "seal layer");
  return LayerSealed{which.root().seal()};
}

std::optional<Message> Server::on(const Frame& frame, const Pause&) {
  container(frame.container).pause(true);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const Resume&) {
  container(frame.container).pause(false);
  return Ok{};
}

std::optional<Message> Server::on(const Frame& frame, const RemoveContainer&) {
  if (seats_.erase(frame.container) != 0 && !containers_.contains(frame.container)) return Ok{};
  container(frame.container);  // must exist
  kill(frame.container, [this, connection = control_number_, number = frame.request,
                         id = frame.container] { reply(connection, number, id, Ok{}); });
  return std::nullopt;
}

std::optional<Message> Server::on(const Frame& frame, const PowerOff&) {
  powering_off_ = true;
  reply(control_number_, frame.request, frame.container, Ok{});
  if (control_) control_->flushBlocking();
  while (!containers_.empty()) kill(containers_.begin()->first, [] {});
  loop_.post([this] { buryDead(); });
  return std::nullopt;
}

// The container leaves the list at once and the machine when its last process is reaped: only then
// can its file systems be unmounted for good.
void Server::kill(const std::string& id, std::function<void()> then) {
  const auto found = containers_.find(id);
  for (auto& [pid, transfer] : transfers_) {
    if (transfer->container() == id) ::kill(pid, SIGKILL);
  }
  found->second->killAll();
  const auto deadline = loop_.after(kDeathPatience, [this, id] {
    note("container " + id + ": processes would not die");
    dying_.remove_if([&id](const Dying& dying) {
      if (dying.container->id() != id) return false;
      dying.then();
      return true;
    });
    buryDead();
  });
  dying_.push_back({std::move(found->second), std::move(then), deadline});
  containers_.erase(found);
  buryDead();
}

void Server::buryDead() {
  const auto used = [this](const Dying& dying) {
    return dying.container->alive() ||
           std::any_of(transfers_.begin(), transfers_.end(), [&dying](const auto& entry) {
             return entry.second->container() == dying.container->id();
           });
  };
  for (auto it = dying_.begin(); it != dying_.end();) {
    if (used(*it)) {
      ++it;
      continue;
    }
    Dying dead = std::move(*it);
    it = dying_.erase(it);
    loop_.cancel(dead.deadline);
    dead.container.reset();
    dead.then();
  }
  if (powering_off_ && dying_.empty() && powered_off_) std::exchange(powered_off_, nullptr)();
}

void Server::exited(const Container& which, const ProcessExited& event) {
  if (control_) control_->send({0, which.id(), event});
}

}  // namespace hull::guest
