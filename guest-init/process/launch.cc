#include "guest-init/process/launch.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "guest-init/container/cgroup.h"
#include "guest-init/process/child.h"

namespace hull::guest {

namespace {

// fork(2) into namespaces and a cgroup, so that the child never runs outside its limits. Without
// CLONE_VM this is a plain fork as far as the C library is concerned (one thread, no handlers).
pid_t forkInto(uint64_t flags, int cgroup, int* pidfd) {
  clone_args arguments{};
  arguments.flags = flags | CLONE_PIDFD | CLONE_INTO_CGROUP;
  arguments.pidfd = reinterpret_cast<uint64_t>(pidfd);
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = static_cast<uint64_t>(cgroup);
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

// Children made while one of these lives are born into the PID namespace of `pidfd`'s process.
class ChildrenInPidNamespace {
 public:
  explicit ChildrenInPidNamespace(int pidfd) : own_(openFile("/proc/self/ns/pid", O_RDONLY)) {
    if (setns(pidfd, CLONE_NEWPID) < 0) {
      throw Error(ErrorKind::kConflict, "container is not running");
    }
  }
  ~ChildrenInPidNamespace() { setns(own_.get(), CLONE_NEWPID); }
  ChildrenInPidNamespace(const ChildrenInPidNamespace&) = delete;
  ChildrenInPidNamespace& operator=(const ChildrenInPidNamespace&) = delete;

 private:
  Fd own_;
};

struct Pipes {
  FdPair input;
  FdPair output;
  FdPair errors;
};

Pipes makePipes(const StartProcess& request) {
  Pipes pipes;
  if (request.terminal) return pipes;
  if (request.open_stdin) {
    pipes.input = makePipe();
    setNonBlocking(pipes.input.second.get());
  } else {
    pipes.input.first = openFile("/dev/null", O_RDONLY);
  }
  pipes.output = makePipe();
  pipes.errors = makePipe();
  setNonBlocking(pipes.output.first.get());
  setNonBlocking(pipes.errors.first.get());
  return pipes;
}

pid_t forkChild(const LaunchTarget& target, int* pidfd) {
  if (target.main_pidfd < 0) {
    return forkInto(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC, target.cgroup.fd(),
                    pidfd);
  }
  const ChildrenInPidNamespace joined(target.main_pidfd);
  return forkInto(0, target.cgroup.fd(), pidfd);
}

}  // namespace

Launched launch(const LaunchTarget& target, const StartProcess& request) {
  FdPair status = makeSocketPair(SOCK_SEQPACKET);
  Pipes pipes = makePipes(request);
  int pidfd = -1;
  const pid_t pid = forkChild(target, &pidfd);
  if (pid < 0 && errno == ENOMEM && target.main_pidfd >= 0) {
    throw Error(ErrorKind::kConflict, "container is not running");  // its PID 1 has just died
  }
  if (pid < 0) throw sysError("start process " + request.process);
  if (pid == 0) {
    runChild(target, request,
             {pipes.input.first.get(), pipes.output.second.get(), pipes.errors.second.get(),
              status.second.get()});
  }
  Launched launched;
  launched.pid = pid;
  launched.pidfd.reset(pidfd);
  launched.status = std::move(status.first);
  launched.input = std::move(pipes.input.second);
  launched.output = std::move(pipes.output.first);
  launched.errors = std::move(pipes.errors.first);
  return launched;
}

LaunchStatus readStatus(int status) {
  LaunchStatus result;
  char message[kMaxStatusBytes];
  ssize_t got = recv(status, message, sizeof message, MSG_DONTWAIT | MSG_PEEK);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return result;
  if (got <= 0) {
    result.kind = LaunchStatus::Kind::kRunning;
    return result;
  }
  ReceivedFds received = receiveWithFds(status, std::as_writable_bytes(std::span(message)));
  if (!received.fds.empty()) {
    result.kind = LaunchStatus::Kind::kTerminal;
    result.terminal = std::move(received.fds.front());
    setNonBlocking(result.terminal.get());
    return result;
  }
  result.kind = LaunchStatus::Kind::kFailed;
  uint16_t code = 0;
  if (received.bytes >= sizeof code) {
    std::memcpy(&code, message, sizeof code);
    result.failure.message.assign(message + sizeof code, received.bytes - sizeof code);
  }
  result.failure.code = static_cast<FailureCode>(code);
  return result;
}

FailureCode failureCodeOf(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kNotFound:
      return FailureCode::kNotFound;
    case ErrorKind::kForbidden:
      return FailureCode::kPermission;
    case ErrorKind::kInvalidArgument:
    case ErrorKind::kTooLarge:
      return FailureCode::kInvalid;
    case ErrorKind::kConflict:
      return FailureCode::kConflict;
    default:
      return FailureCode::kOther;
  }
}

}  // namespace hull::guest
