// What `start` decided and the supervisor carries out, handed over as a JSON file in the state
// folder; and the QEMU command line that follows from it. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "machine/paths.h"

namespace hull::machine {

struct MachineConfig {
  std::string qemu = "qemu-system-x86_64";
  std::string image_directory;
  std::string payload_directory;
  uint64_t memory_mib = 0;
};

void saveConfig(const MachinePaths& paths, const MachineConfig& config);
MachineConfig loadConfig(const MachinePaths& paths);

// Half of the host's memory, at least 2 GiB, at most 8 GiB, and no more than the host has.
uint64_t defaultMemoryMib();

// Descriptor numbers in the QEMU process.
inline constexpr int kQemuChannelFd = 3;
inline constexpr int kQemuConsoleFd = 4;
inline constexpr int kQemuLogFd = 5;
inline constexpr int kQemuLockFd = 6;   // unused by QEMU; its lock ends with the process
inline constexpr int kQemuShareFd = 7;  // virtiofsd with the host's files

// `share`: with the device of host_share.h.
std::vector<std::string> qemuArguments(const MachinePaths& paths, const MachineConfig& config,
                                       bool share);

}  // namespace hull::machine
