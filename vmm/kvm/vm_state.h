// What KVM holds for a whole VM beside memory and vCPUs, as plain data: the interrupt controllers
// that all vCPUs share, and the clock. There is no timer chip (kvm.h).
//
// Owner: Machine. Any thread, while no vCPU runs.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace hull::vmm {

struct VmState {
  std::array<kvm_irqchip, 3> chips{};  // by chip_id: two PICs, the I/O APIC
  uint64_t clock_ns = 0;               // KVM's clock; it stands still while the VM is saved
};

void put(ByteWriter& out, const VmState& state);
VmState takeVmState(ByteReader& in);  // makes `in` fail when that is none

// Both throw hull::Error. Write after the vCPUs' local controllers: interrupts may be pending.
VmState readVmState(int vm);
void writeVmState(int vm, const VmState& state);

}  // namespace hull::vmm
