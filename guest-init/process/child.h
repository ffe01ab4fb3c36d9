// The child's half of starting a process: from fork to exec. Runs in a process of its own, inside
// or on the way into the container; reports over the status socket and never returns.
#pragma once

#include "guest-init/process/launch.h"

namespace hull::guest {

inline constexpr size_t kMaxStatusBytes = 4096;

struct ChildStdio {
  int input = -1;  // −1 with a terminal, like the next two
  int output = -1;
  int errors = -1;
  int status = -1;  // SOCK_SEQPACKET, CLOEXEC
};

[[noreturn]] void runChild(const LaunchTarget& target, const StartProcess& request,
                           const ChildStdio& stdio);

}  // namespace hull::guest
