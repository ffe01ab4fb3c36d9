// One container: its root file system, cgroup and processes. The event loop's thread. Requests
// that fail throw hull::Error; starting a process is answered later.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "guest-init/container/cgroup.h"
#include "guest-init/container/rootfs.h"
#include "guest-init/container/seat.h"
#include "guest-init/container/sockets.h"
#include "guest-init/process/channels.h"
#include "guest-init/process/launch.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

inline constexpr size_t kMaxProcesses = 1024;  // per container, exited and not forgotten included

// Where hull-init keeps things; the tests use places of their own.
struct Places {
  std::string state = "/run/hull";         // tmpfs
  std::string cgroups = "/sys/fs/cgroup";  // cgroup2
};

struct Process {
  enum class State { kStarting, kRunning, kExited };
  std::string id;
  State state = State::kStarting;
  pid_t pid = -1;
  Fd pidfd;
  Fd status;    // while starting
  Fd terminal;  // the pty's master
  std::shared_ptr<InputChannel> input;
  std::shared_ptr<OutputChannel> output;
  std::shared_ptr<OutputChannel> errors;
  uint64_t oom_kills_before = 0;
  int32_t exit_code = 0;
  bool out_of_memory = false;
  std::function<void(Message)> started;  // ProcessStarted or Failure; called once
};

class Container {
 public:
  using Reply = std::function<void(Message)>;
  using ExitHandler = std::function<void(const Container&, const ProcessExited&)>;

  Container(EventLoop& loop, const Places& places, std::string id, Seat seat,
            CreateContainer options, ExitHandler exited);
  ~Container();
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  const std::string& id() const { return id_; }
  const CreateContainer& options() const { return options_; }
  RootFilesystem& root() { return root_; }
  Sockets& sockets() { return sockets_; }

  void start(const StartProcess& request, Reply reply);
  void signal(const SignalProcess& request);
  void resize(const ResizeTerminal& request);
  void forget(const std::string& process);
  void setLimits(const SetLimits& limits) { cgroup_.setLimits(limits); }
  Usage usage() const;
  void pause(bool on) { cgroup_.freeze(on); }
  void killAll() { cgroup_.killAll(); }
  ProcessTable listProcesses() const;
  ContainerState state() const;

  Process& process(const std::string& id);  // throws kNotFound
  const Process* runningMain() const;       // nullptr when the container does not run
  bool alive() const;                       // some process has not been reaped
  void requireStopped(const char* operation) const;

  // Called with every child hull-init has reaped; false when it is none of this container's.
  bool reaped(pid_t pid, int wait_status);

 private:
  void checkStart(const StartProcess& request) const;
  void useMountPoints(const std::vector<StepMount>& mounts);
  void watchStart(Process& process);
  void startChanged(const std::string& id);
  void takeTerminal(Process& process, Fd terminal);
  void drop(const std::string& id);

  EventLoop& loop_;
  std::string id_;
  CreateContainer options_;
  ExitHandler exited_;
  Seat seat_;  // its disks outlive their mounts
  RootFilesystem root_;
  Sockets sockets_;
  Cgroup cgroup_;
  std::string cgroup_path_;
  std::map<std::string, std::unique_ptr<Process>> processes_;
  bool outlives_ = false;  // something that its processes may write to outlives this VM
};

}  // namespace hull::guest
