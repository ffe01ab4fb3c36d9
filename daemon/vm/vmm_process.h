// The hull-vmm process of one VM, or a helper of it (shares, network): started by this engine
// process (then its child), or found again through the VM's folder after an engine restart.
// "vmm.pid" there holds the process id and its start time, so that a reused id is never mistaken
// for it. Owned by one Vm; kill() from any thread, the rest from one at a time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/subprocess.h"

namespace hull::engine {

inline constexpr const char* kPidFile = "vmm.pid";
inline constexpr const char* kSharePidFile = "share.pid";
inline constexpr const char* kPasstPidFile = "passt.pid";
inline constexpr uint32_t kVmmUids = 65536;  // [uid base, uid base + kVmmUids) are the VMMs'

class VmmProcess {
 public:
  // Runs `options` and records it in `directory`.
  static VmmProcess spawn(const SubprocessOptions& options, const std::string& directory,
                          const char* pid_file = kPidFile);
  // nullopt: never started, or ended.
  static std::optional<VmmProcess> find(const std::string& directory,
                                        const char* pid_file = kPidFile);

  VmmProcess(VmmProcess&&) = default;
  VmmProcess& operator=(VmmProcess&&) = delete;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }  // readable once it has ended
  bool ended() const;
  void kill(int signal_number) const;  // through the pidfd: never hits another process
  bool waitEnded(int timeout_ms) const;
  // Collects an ended child: its exit status; nullopt when it is not our child.
  std::optional<int> reap();
  void abandon();  // leave it running

 private:
  VmmProcess(pid_t pid, Fd pidfd, std::optional<Subprocess> child)
      : pid_(pid), pidfd_(std::move(pidfd)), child_(std::move(child)) {}

  pid_t pid_ = -1;
  Fd pidfd_;
  std::optional<Subprocess> child_;
};

// An identity in [base, base + kVmmUids) that no process on this host has now.
uint32_t freeVmmUid(uint32_t base);

// A VM's processes.
struct VmProcesses {
  VmmProcess vmm;
  std::optional<VmmProcess> share;  // serves its folders
  std::optional<VmmProcess> passt;  // is its network, without root
};

// Waits for the end of a VM's helper, which comes with its VMM's; one that does not end is killed.
// Never throws.
void endHelper(VmmProcess& helper, const char* what_it_does);
// Those that an earlier engine process left behind in `directory`, with their VMM gone.
void endStrayHelpers(const std::string& directory);

}  // namespace hull::engine
