// Starting a process in a container: the parent's half. The child is a direct child of hull-init
// (which reaps it) and reports over a socket that closes when exec succeeds. The main process is
// PID 1 of its own PID namespace, as in Docker; others join the namespaces of the main one.
// The event loop's thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/error.h"
#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

class Cgroup;

struct LaunchTarget {
  std::string state;  // RootFilesystem's directory
  const CreateContainer& options;
  const Cgroup& cgroup;
  int main_pidfd = -1;  // -1: this is the main process
};

struct Launched {
  pid_t pid = -1;
  Fd pidfd;
  Fd status;  // readStatus() when readable
  Fd input;   // write end, non-blocking; invalid without open_stdin and with a terminal
  Fd output;  // read ends, non-blocking; invalid with a terminal until the status brings it
  Fd errors;
};

// Throws when no process could be made at all; what goes wrong in the child comes as its status.
Launched launch(const LaunchTarget& target, const StartProcess& request);

struct LaunchStatus {
  enum class Kind { kPending, kTerminal, kRunning, kFailed };
  Kind kind = Kind::kPending;
  Fd terminal;      // kTerminal: the pty's master, non-blocking; another status follows
  Failure failure;  // kFailed
};
LaunchStatus readStatus(int status);  // never blocks

// A Failure as the host should see it.
FailureCode failureCodeOf(ErrorKind kind);

}  // namespace hull::guest
