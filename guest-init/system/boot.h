// What hull-init does as PID 1 of a VM before and after serving: the kernel's file systems, the
// exit port, the end. Called once each, by main.
#pragma once

#include <cstdint>

#include "base/fd.h"
#include "vmm/config/vm_config.h"

namespace hull::guest {

void mountKernelFileSystems();  // and makes a tmpfs the root, which containers can pivot from
void prepareCgroups();
Fd listenVsock(uint32_t port);
void writeExitPort(vmm::ExitPortValue value);
[[noreturn]] void powerOff();

}  // namespace hull::guest
