// The VMM's control socket (vmm/config/vm_config.h): one JSON object each way for one connection.
// The VMM may have been taken over: its answers are bounded and given a deadline. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "vmm/config/vm_config.h"

namespace hull::engine {

enum class VmmState { kRunning, kPaused };

VmmState vmmState(const std::string& socket_path);
// "pause", "resume" or "stop".
void commandVmm(const std::string& socket_path, const std::string& command);
// The size that the guest sees. Throws kConflict for a VMM from before disks could grow.
uint64_t vmmDiskBytes(const std::string& socket_path, const std::string& disk);
// A descriptor for each segment, which stays the caller's.
void growVmmDisk(const std::string& socket_path, const vmm::DiskGrowth& growth,
                 const std::vector<int>& files);
void cutVmmDisk(const std::string& socket_path, const vmm::DiskCut& cut);
void changeVmmLimits(const std::string& socket_path, const vmm::LimitsChange& change);

}  // namespace hull::engine
