// The walls around a hull-vmm process that a guest may one day take over. In the order of use:
//
//   closeUnknownDescriptors  first thing, before anything is opened
//   enterJail                after the machine is built (/dev/kvm open), before any thread: empty
//                            root, own mount, network, IPC and UTS namespaces, own uid, no
//                            capabilities, limits, no_new_privs
//   SeccompFilter            per thread (seccomp.h)
//
// Without root there are no namespaces and no change of uid; one log line says so. Main thread.
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
