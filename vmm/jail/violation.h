// What becomes of a thread that makes a system call its filter (seccomp.h) forbids: the VM ends
// with ExitReason::kError and a detail that names the kind of thread and the call. The kernel has
// not made the call; it sends SIGSYS, and the handler writes the VM's exit object and one log line,
// and ends the process. A thread that has tampered with the signal is killed by the kernel instead.
//
// Main thread, before any filter is applied; the handler runs on any thread and touches nothing but
// its own stack and what reportViolations() stored.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace hull::vmm {

// `status_fd` as in VmConfig; -1: only the log line. Throws hull::Error.
void reportViolations(int status_fd);

// The exit status of a process that ended this way: that of ExitReason::kError (vm_config.h).
inline constexpr int kViolationExitStatus = 13;

struct Violation {
  uint32_t thread_kind = 0;  // SeccompFilter::Kind as a number
  int64_t call = 0;
  uint64_t arguments[3] = {};
};

// "jail: a device thread called openat (257) with 0x1, 0x2, 0x3, which its system call filter
// forbids". Async-signal-safe; gives the part of `space` that was used.
std::string_view describe(const Violation& violation, std::span<char> space) noexcept;

}  // namespace hull::vmm
