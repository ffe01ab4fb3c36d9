// Which device nodes a container may use: a filter on its cgroup (BPF_PROG_TYPE_CGROUP_DEVICE), as
// Docker's device cgroup. Without it, a container's root could make a node of its own disk below
// the overlay. The event loop's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

// Encoded instructions (struct bpf_insn): the first rule that fits allows, none denies.
std::vector<uint64_t> deviceProgram(const std::vector<DeviceRule>& rules);

// For the cgroup behind `cgroup_fd`. Throws where the kernel does not take it.
void restrictDevices(int cgroup_fd, const std::vector<DeviceRule>& rules);

}  // namespace hull::guest
