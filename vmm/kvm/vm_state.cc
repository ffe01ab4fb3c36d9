#include "vmm/kvm/vm_state.h"

#include "vmm/kvm/kvm.h"

namespace hull::vmm {

static_assert(KVM_IRQCHIP_PIC_MASTER == 0 && KVM_IRQCHIP_PIC_SLAVE == 1 && KVM_IRQCHIP_IOAPIC == 2);

void put(ByteWriter& out, const VmState& state) {
  for (const kvm_irqchip& chip : state.chips) {
    out.raw({reinterpret_cast<const char*>(&chip.chip), sizeof chip.chip});
  }
  out.u64(state.clock_ns);
}

VmState takeVmState(ByteReader& in) {
  VmState state;
  for (uint32_t id = 0; id < state.chips.size(); ++id) {
    state.chips[id].chip_id = id;
    const std::string_view bytes = in.raw(sizeof state.chips[id].chip);
    if (in.ok()) std::memcpy(&state.chips[id].chip, bytes.data(), bytes.size());
  }
  state.clock_ns = in.u64();
  return state;
}

VmState readVmState(int vm) {
  VmState state;
  for (uint32_t id = 0; id < state.chips.size(); ++id) {
    state.chips[id].chip_id = id;
    kvmIoctl(vm, KVM_GET_IRQCHIP, &state.chips[id], "read an interrupt controller");
  }
  kvm_clock_data clock{};
  kvmIoctl(vm, KVM_GET_CLOCK, &clock, "read the clock");
  state.clock_ns = clock.clock;
  return state;
}

void writeVmState(int vm, const VmState& state) {
  for (const kvm_irqchip& chip : state.chips) {
    kvmIoctl(vm, KVM_SET_IRQCHIP, &chip, "write an interrupt controller");
  }
  kvm_clock_data clock{};
  clock.clock = state.clock_ns;
  kvmIoctl(vm, KVM_SET_CLOCK, &clock, "set the clock");
}

}  // namespace hull::vmm
