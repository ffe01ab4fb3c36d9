// What this host can do for virtual machines: hardware virtualization is decided by the CPU's flags
// and by a probe guest, never by the presence of /dev/kvm alone (some hosts emulate kernel-mode
// instructions one by one and stop at the first unusual one). Used by `hull doctor`, the client's
// automatic start and scripts. No state, any thread.
#pragma once

#include <string>

namespace hull::machine {

enum class HostVirtualization {
  kUsable,        // KVM runs guests on the processor
  kNoCpuFlags,    // neither vmx nor svm, and no /dev/kvm
  kNoDevice,      // the processor could, but there is no /dev/kvm
  kNoPermission,  // /dev/kvm may not be opened by this user
  kEmulatedOnly,  // /dev/kvm is there without the processor's support for it
  kProbeFailed,   // flags and device are there, but the probe guest did not run through
};

struct Detection {
  HostVirtualization result = HostVirtualization::kNoCpuFlags;
  std::string explanation;  // one line: what is so
  std::string next_step;    // one line: what to do; empty when usable

  bool usable() const { return result == HostVirtualization::kUsable; }
};

std::string_view toString(HostVirtualization value);  // "usable", "no-cpu-flags", …

// Takes a few milliseconds, at most kProbeTimeout.
Detection detect();

// What the flags line of /proc/cpuinfo says: "vmx", "svm" or "".
std::string cpuVirtualizationFlag(const std::string& cpuinfo);

// Runs the probe guest on `device` in a child process. Empty: it ran through; otherwise why not.
std::string runProbeGuest(const std::string& device);

}  // namespace hull::machine
