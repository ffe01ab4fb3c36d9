// /dev/kvm by direct ioctls: the system, one VM, its interrupt wiring. Thin on purpose; what the
// bits mean is in cpuid.h, vcpu.h and boot/.
//
// Owner: Machine. Built on the main thread; constant afterwards.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "vmm/memory/guest_memory.h"

namespace hull::vmm {

// ioctl(2) again while EINTR; throws hull::Error("operation: cause") when it fails.
int kvmIoctl(int fd, unsigned long request, unsigned long argument, const char* operation);
int kvmIoctl(int fd, unsigned long request, const void* argument, const char* operation);

class Kvm {
 public:
  // Opens /dev/kvm; the error says what to do when it is not there or not allowed.
  Kvm();

  bool has(int capability) const;
  size_t runMappingBytes() const { return run_mapping_bytes_; }
  std::vector<kvm_cpuid_entry2> supportedCpuid() const;
  // The model specific registers that make up a vCPU's state on this host.
  std::vector<uint32_t> stateMsrs() const;
  Fd createVm() const;

 private:
  Fd fd_;
  size_t run_mapping_bytes_ = 0;
};

class KvmVm {
 public:
  // With interrupt controllers in the kernel and without a PIT: a guest needs none with a TSC
  // deadline timer, and KVM would do its ticks in a kernel thread of the host.
  KvmVm(const Kvm& kvm, GuestMemory& memory);

  int fd() const { return fd_.get(); }
  // Guest writes to `address` (any width if KVM can) signal `event`.
  void addNotify(uint64_t address, int event);
  // Only 32-bit writes of `value` do.
  void addNotify(uint64_t address, int event, uint32_t value);
  // Signalling `event` raises an edge on pin `gsi`.
  void addInterrupt(uint32_t gsi, int event);

 private:
  void addMemory(GuestMemory& memory);

  Fd fd_;
  bool any_length_notify_;
};

}  // namespace hull::vmm
