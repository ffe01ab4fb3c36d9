// The payload disk: the host's build outputs, the init and the agent, as a small read-only ext4
// that the machine mounts on /opt/hull. Made again when what is in it changes. Any thread; callers
// hold the start lock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "machine/paths.h"

namespace hull::machine {

struct PayloadSource {
  std::string directory;                     // hulld, hull-vmm, hull-initramfs, vmlinux
  std::string agent;                         // the program that runs runAgent()
  std::vector<std::string> agent_arguments;  // how
};

// Empty when the payload is complete (or has no engine at all: a bare machine); otherwise what is
// missing and what to do.
std::string payloadProblem(const PayloadSource& source);

// Changes with every file in it.
std::string payloadKey(const PayloadSource& source);

// True when the disk was made (or made again), false when it was current.
bool ensurePayload(const MachinePaths& paths, const PayloadSource& source);

// A sparse ext4 of `gib`, unless it is there.
void ensureDataDisk(const MachinePaths& paths, uint64_t gib);

}  // namespace hull::machine
