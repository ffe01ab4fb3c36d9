// One virtual CPU: its registers at the start, and the loop that runs it and answers its exits. No
// exit stops the VM but those that say so; an exit we do not know ends it with an error.
//
// Owner: Machine. Built on the main thread, then run() on a thread of its own.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "vmm/bus/bus.h"
#include "vmm/bus/platform.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu_group.h"

namespace hull::vmm {

class Vcpu {
 public:
  Vcpu(const Kvm& kvm, const KvmVm& vm, uint32_t index, uint32_t vcpus,
       std::span<const kvm_cpuid_entry2> supported);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  int fd() const { return fd_.get(); }
  uint32_t index() const { return index_; }
  // What the guest sees of its CPU, and its TSC's frequency (0: unknown).
  const std::vector<kvm_cpuid_entry2>& cpuid() const { return cpuid_; }
  uint32_t tscKhz() const { return tsc_khz_; }

  struct World {
    Bus& ports;
    Bus& mmio;
    VcpuGroup& group;
    PlatformEvents& events;
  };
  // Until the group stops. The others than vCPU 0 wait in the kernel for their start-up interrupt.
  void run(const World& world) noexcept;

 private:
  bool handleExit(const World& world) noexcept;
  void handlePortAccess(Bus& ports) noexcept;
  bool fail(const World& world, const char* what, uint64_t code) noexcept;

  uint32_t index_;
  Fd fd_;
  uint32_t tsc_khz_;
  std::vector<kvm_cpuid_entry2> cpuid_;
  size_t mapping_bytes_;
  kvm_run* run_ = nullptr;
};

}  // namespace hull::vmm
