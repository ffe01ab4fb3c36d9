// What hull-init does as PID 1 of a VM before and after serving: the kernel's file systems, the
// exit port, the end. Called once each, by main.
#pragma once

#include <cstdint>

#include "base/fd.h"
#include "vmm/config/vm_config.h"

namespace hull::guest {

void mountKernelFileSystems();  // and makes a tmpfs the root, which containers can pivot from
// The cgroup that holds the containers': apart from hull-init's, with a smaller share of the CPUs,
// and not a container's own, whose cpu.weight programs take for a number of CPUs.
inline constexpr const char* kContainersCgroup = "/sys/fs/cgroup/containers";
void prepareCgroups();
Fd listenVsock(uint32_t port);
void writeExitPort(vmm::ExitPortValue value);
[[noreturn]] void powerOff();

}  // namespace hull::guest
