// Starting the passt process of a VM without a tap: its end of the wire, and the wait until it
// serves. It jails itself, and ends when the VMM closes the wire. Used by Launch; one thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "daemon/vm/vmm_process.h"

namespace hull::engine {

struct PasstProcess {
  VmmProcess process;
  Fd wire;  // for the VMM: frames, each behind its length
};

// `command` but for "--fd N"; what passt says goes to
// `log_fd`. Throws when it cannot be run.
PasstProcess startPasst(const std::vector<std::string>& command, const std::string& directory,
                        int log_fd);

// Asks it something that it answers (ARP), once its ports are bound and its jail is closed. False:
// it has ended, or does not serve in time. Frames that come before the answer are lost.
bool awaitPasst(const PasstProcess& passt, const std::array<uint8_t, 6>& mac,
                std::chrono::milliseconds patience);

}  // namespace hull::engine
