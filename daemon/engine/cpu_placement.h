// Where on the host a container's virtual machine runs: on which CPUs (--cpuset-cpus), and with
// what weight against other processes (--cpu-shares, as niceness). Any thread.
#pragma once

#include <sys/types.h>

#include "daemon/engine/spec_options.h"

namespace hull::engine {

// Throws kInvalidArgument in Docker's words when this host lacks one of the CPUs.
void checkCpus(const LimitSpec& limits);

// For every thread of the process `vmm`. Throws when the kernel refuses.
void placeOnCpus(pid_t vmm, const LimitSpec& limits);

// Linux gives a process 1.25 times the CPU time per step of niceness (sched(7)); Docker's shares
// are relative to 1024. 0 shares: 0.
int nicenessOfShares(uint64_t shares);

}  // namespace hull::engine
