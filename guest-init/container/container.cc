#include "guest-init/container/container.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "guest-init/container/device_rules.h"
#include "guest-init/container/process_table.h"
#include "guest-init/container/usage.h"
#include "guest-init/container/volumes.h"

namespace hull::guest {

Container::Container(EventLoop& loop, const Places& places, std::string id, Seat seat,
                     CreateContainer options, ExitHandler exited)
    : loop_(loop),
      id_(std::move(id)),
      options_(std::move(options)),
      exited_(std::move(exited)),
      seat_(std::move(seat)),
      root_(places.state + "/c/" + id_, options_, seat_.host()),
      sockets_(loop, root_.state() + "/sockets"),
      cgroup_(places.cgroups + "/hull-" + id_, options_.pids_limit, options_.memory_bytes),
      cgroup_path_(places.cgroups + "/hull-" + id_) {
  for (const Mount& mount : options_.mounts) {
    if (mount.kind == Mount::Kind::kSocket) sockets_.get(mount.source);
  }
  outlives_ = std::any_of(options_.mounts.begin(), options_.mounts.end(), isVolume);
  if (!options_.device_rules.empty()) restrictDevices(cgroup_.fd(), options_.device_rules);
}

Container::~Container() {
  while (!processes_.empty()) drop(processes_.begin()->first);
}

Process& Container::process(const std::string& id) {
  const auto found = processes_.find(id);
  if (found == processes_.end()) {
    throw Error(ErrorKind::kNotFound, "process " + id + ": no such process");
  }
  return *found->second;
}

const Process* Container::runningMain() const {
  const auto found = processes_.find(kMainProcess);
  return found != processes_.end() && found->second->state == Process::State::kRunning
             ? found->second.get()
             : nullptr;
}

bool Container::alive() const {
  return std::any_of(processes_.begin(), processes_.end(), [](const auto& entry) {
    return entry.second->state != Process::State::kExited;
  });
}

void Container::requireStopped(const char* operation) const {
  for (const auto& [id, process] : processes_) {
    if (process->state != Process::State::kExited) {
      throw Error(ErrorKind::kConflict, std::string(operation) + ": process " + id + " is running");
    }
  }
}

void Container::checkStart(const StartProcess& request) const {
  if (request.process.empty() || processes_.contains(request.process)) {
    throw Error(ErrorKind::kConflict, "start process " + request.process + ": exists already");
  }
  if (processes_.size() >= kMaxProcesses) {
    throw Error(ErrorKind::kTooLarge, "start process: too many processes not forgotten");
  }
  if (request.process != kMainProcess && !runningMain()) {
    throw Error(ErrorKind::kConflict, "container is not running");
  }
}

void Container::start(const StartProcess& request, Reply reply) {
  checkStart(request);
  const Process* main = request.process == kMainProcess ? nullptr : runningMain();
  if (main && !request.mounts.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "start process: mounts are for the main process");
  }
  if (!main) useMountPoints(request.mounts);
  auto process = std::make_unique<Process>();
  process->id = request.process;
  process->oom_kills_before = cgroup_.oomKills();
  Launched launched =
      launch({root_.state(), options_, cgroup_, main ? main->pidfd.get() : -1}, request);
  process->pid = launched.pid;
  process->pidfd = std::move(launched.pidfd);
  process->status = std::move(launched.status);
  process->input =
      std::make_shared<InputChannel>(loop_, std::move(launched.input), request.terminal);
  process->output =
      std::make_shared<OutputChannel>(loop_, std::move(launched.output), request.terminal);
  process->errors = std::make_shared<OutputChannel>(loop_, std::move(launched.errors));
  process->started = std::move(reply);
  Process& kept = *processes_.emplace(request.process, std::move(process)).first->second;
  watchStart(kept);
}

void Container::useMountPoints(const std::vector<StepMount>& mounts) {
  std::vector<std::string> directories, files;
  for (const StepMount& mount : mounts) {
    (mount.file ? files : directories).push_back(mount.destination);
    outlives_ |= mount.kind == StepMount::Kind::kDisk;
  }
  root_.useMountPoints(std::move(directories), std::move(files));
}

void Container::watchStart(Process& process) {
  loop_.add(process.status.get(), EPOLLIN, [this, id = process.id](uint32_t) { startChanged(id); });
}

void Container::takeTerminal(Process& process, Fd terminal) {
  // A duplicate each, because the loop watches input and output apart.
  process.output->setSource(terminal.duplicate());
  process.input->setSink(terminal.duplicate());
  process.terminal = std::move(terminal);
}

void Container::startChanged(const std::string& id) {
  Process& process = *processes_.at(id);
  LaunchStatus status = readStatus(process.status.get());
  switch (status.kind) {
    case LaunchStatus::Kind::kPending:
      return;
    case LaunchStatus::Kind::kTerminal:
      return takeTerminal(process, std::move(status.terminal));
    case LaunchStatus::Kind::kRunning:
    case LaunchStatus::Kind::kFailed:
      break;
  }
  loop_.remove(process.status.get());
  process.status.reset();
  const auto started = std::exchange(process.started, nullptr);
  if (status.kind == LaunchStatus::Kind::kRunning) {
    process.state = Process::State::kRunning;
    started(ProcessStarted{static_cast<uint32_t>(process.pid)});
  } else {
    drop(id);  // its zombie is nobody's any more when it is reaped
    started(std::move(status.failure));
  }
}

bool Container::reaped(pid_t pid, int wait_status) {
  for (auto& [id, process] : processes_) {
    if (process->pid != pid || process->state == Process::State::kExited) continue;
    const std::string name = id;
    // What it said before it died comes first; the socket is closed by now, so this ends.
    while (processes_.contains(name) && process->state == Process::State::kStarting) {
      startChanged(name);
    }
    if (!processes_.contains(name)) return true;
    process->state = Process::State::kExited;
    process->exit_code =
        WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    // A reaper tells of its command's end by its own exit code.
    const bool killed = process->exit_code == 128 + SIGKILL &&
                        (WIFSIGNALED(wait_status) || (options_.init && name == kMainProcess));
    process->out_of_memory = killed && cgroup_.oomKills() > process->oom_kills_before;
    // The VM may be ended any time after this; what outlives it shall be outside then.
    if (outlives_) ::sync();
    process->pidfd.reset();
    process->input->close();
    process->output->endIfSourceless();
    exited_(*this, {name, process->exit_code, process->out_of_memory});
    return true;
  }
  return false;
}

void Container::signal(const SignalProcess& request) {
  if (request.whole_container && request.signal == SIGKILL) return cgroup_.killAll();
  if (request.whole_container) {
    for (const pid_t pid : pidsOfCgroup(cgroup_path_)) {
      ::kill(pid, static_cast<int>(request.signal));
    }
    return;
  }
  const Process& target = process(request.process);
  if (target.state == Process::State::kExited) {
    throw Error(ErrorKind::kConflict, "process " + request.process + ": is not running");
  }
  if (syscall(SYS_pidfd_send_signal, target.pidfd.get(), request.signal, nullptr, 0) < 0 &&
      errno != ESRCH) {
    throw sysError("signal process " + request.process);
  }
}

void Container::resize(const ResizeTerminal& request) {
  const Process& target = process(request.process);
  if (!target.terminal) {
    throw Error(ErrorKind::kInvalidArgument, "process " + request.process + ": has no terminal");
  }
  winsize size{};
  size.ws_row = request.rows;
  size.ws_col = request.columns;
  if (ioctl(target.terminal.get(), TIOCSWINSZ, &size) < 0) throw sysError("resize terminal");
}

void Container::forget(const std::string& id) {
  if (process(id).state != Process::State::kExited) {
    throw Error(ErrorKind::kConflict, "process " + id + ": is still running");
  }
  drop(id);
}

void Container::drop(const std::string& id) {
  const auto found = processes_.find(id);
  const std::unique_ptr<Process> process = std::move(found->second);
  processes_.erase(found);
  if (process->status) loop_.remove(process->status.get());
  process->input->close();
  process->output->abandon();
  process->errors->abandon();
}

ProcessTable Container::listProcesses() const {
  if (!runningMain()) throw Error(ErrorKind::kConflict, "container is not running");
  return makeProcessTable(pidsOfCgroup(cgroup_path_));
}

Usage Container::usage() const {
  if (!runningMain()) throw Error(ErrorKind::kConflict, "container is not running");
  return readUsage(cgroup_path_);
}

ContainerState Container::state() const {
  ContainerState state{id_, {}};
  for (const auto& [id, process] : processes_) {
    if (process->state == Process::State::kStarting) continue;
    state.processes.push_back({id, static_cast<uint32_t>(process->pid),
                               process->state == Process::State::kRunning, process->exit_code,
                               process->out_of_memory});
  }
  return state;
}

}  // namespace hull::guest
