// `hull machine`: an emulated KVM host (QEMU's TCG with nested AMD SVM) for hosts whose processor
// offers no virtualization. The same hulld and hull-vmm run in it; its engine answers on a unix
// socket of this host, its published ports appear on this host. These functions are what the client
// calls; a supervisor process (supervisor.h), detached from the caller, owns QEMU. One machine per
// user (per state folder). Any thread; start, stop and remove serialize across processes. All throw
// hull::Error with the next step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "machine/exec.h"
#include "machine/paths.h"

namespace hull::machine {

using Progress = std::function<void(const std::string& line)>;  // one line, no newline

struct MachineOptions {
  MachinePaths paths;
  // The folder from scripts/machine-image. Empty: the image script is run, which finds or makes it.
  std::string image_directory;
  // Debian packages more in the image ("docker.io,podman"); part of what the script is asked for.
  std::string image_packages;
  // Where hulld, hull-vmm, hull-initramfs and vmlinux are; empty: beside the running program.
  std::string payload_directory;
  // How the running program runs supervise() and runAgent(): {"machine", "supervise"}.
  std::vector<std::string> supervise_arguments;
  std::vector<std::string> agent_arguments;
  uint64_t memory_mib = 0;  // 0: half of the host's, at least 2 GiB, at most 8
  uint64_t disk_gib = 0;    // sparse; 0: kDefaultDiskGib; a disk that is there keeps its size
};
inline constexpr uint64_t kDefaultDiskGib = 64;

enum class MachinePhase { kAbsent, kStopped, kBooting, kAgentUp, kReady };
std::string_view toString(MachinePhase phase);

struct MachineStatus {
  MachinePhase phase = MachinePhase::kAbsent;
  int supervisor_pid = 0;  // 0: not running
  bool engine = false;     // hulld answers (the payload may hold none)
  uint64_t memory_mib = 0;
  uint64_t disk_used_bytes = 0;  // of the sparse data disk
  uint64_t connections = 0;      // streams open now
  int64_t started_at = 0;        // seconds since the epoch
  bool payload_current = true;   // false: the programs beside the client are newer
};

// Makes what is missing: image, data disk. Nothing to do is quick.
void init(const MachineOptions& options, const Progress& progress);

// Starts the machine, init() included, and returns when its agent answers and its engine does too
// (when the payload has one). Already running: returns at once. On failure the message ends with
// the console's last lines.
void start(const MachineOptions& options, const Progress& progress);

// Asks for power-off, waits, then kills. Not running: nothing.
void stop(const MachinePaths& paths, const Progress& progress);

// Stops, then deletes the disks and the logs. Images stay in the cache.
void remove(const MachinePaths& paths, const Progress& progress);

MachineStatus status(const MachineOptions& options);

// The socket of the engine in a running machine; empty when there is none. Quick, starts nothing.
std::string engineSocket(const MachinePaths& paths);

// Runs a command in the running machine with this process's stdin, stdout and stderr. Returns its
// exit status.
int run(const MachinePaths& paths, const ExecRequest& request);

// The body of the supervisor process: returns when the machine has stopped.
int supervise(const MachinePaths& paths);

}  // namespace hull::machine
