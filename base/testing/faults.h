// Faults of the disk, for tests: the n-th file operation below a folder fails, or ends the process
// on the spot as a kill would. Link the object library hull_faults into a test program: its
// definitions of open, write, fsync, rename … stand before libc's for the whole process, so what
// SQLite and the C++ library do counts as well. Nothing of it is in the shipped programs.
//
// Counted, when they would change something: creating opens, mkdir, write, pwrite, ftruncate,
// fsync, fdatasync, rename, unlink, rmdir. Syncs are counted and then not done: what would be lost
// without them is told by unsyncedPublications() instead. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hull::testing {

enum class FaultMode {
  kFail,  // ENOSPC, or EIO where a full disk cannot be the reason
  kExit,  // _exit(kFaultStatus)
};
inline constexpr int kFaultStatus = 97;

// From now on operations below `folder` (an absolute path without symlinks) are counted, and the
// `nth`, from 1, meets the fault; 0: none does. Once.
void armFault(const std::string& folder, uint64_t nth, FaultMode mode);

struct FaultReport {
  uint64_t operations = 0;
  std::string fault;  // what met it, like "rename /a/b"; empty when none did
  // Files that got another name while some of what was written to them was not synced.
  std::vector<std::string> unsynced_publications;
};
FaultReport disarmFault();

}  // namespace hull::testing
