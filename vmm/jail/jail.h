// The walls around a hull-vmm process that a guest may one day take over. In the order of use:
//
//   closeUnknownDescriptors  first thing, before anything is opened
//   reportViolations         who breaks a filter is told by name (violation.h)
//   enterJail                after the machine is built (/dev/kvm open), before any thread: empty
//                            environment, empty root, own mount, network, IPC and UTS namespaces,
//                            own uid, no capabilities, limits, no_new_privs, Landlock
//   SeccompFilter            per thread (seccomp.h)
//
// A PID namespace must be there before the process is: the engine starts hull-vmm in one.
// Without root there is no uid of its own, and namespaces only where the host lets users make them;
// one log line says what is missing. Main thread.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/config/vm_config.h"

namespace hull::vmm {

// Every descriptor that the configuration names, sorted.
std::vector<int> descriptorsOf(const VmConfig& config);

// Closes all but standard error and `keep`; what is missing of 0 and 1 becomes /dev/null.
void closeUnknownDescriptors(const std::vector<int>& keep);

// uid and gid 0: the caller's are kept. Throws hull::Error.
void enterJail(uint32_t uid, uint32_t gid);

}  // namespace hull::vmm
