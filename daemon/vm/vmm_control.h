// The VMM's control socket (vmm/config/vm_config.h): one JSON object each way for one connection.
// The VMM may have been taken over: its answers are bounded and given a deadline. Any thread.
#pragma once

#include <string>

#include "vmm/config/vm_config.h"

namespace hull::engine {

enum class VmmState { kRunning, kPaused };

VmmState vmmState(const std::string& socket_path);
// "pause", "resume" or "stop".
void commandVmm(const std::string& socket_path, const std::string& command);
void changeVmmLimits(const std::string& socket_path, const vmm::LimitsChange& change);

}  // namespace hull::engine
