// All there is to know about a vCPU that stands still, as plain data: read from KVM, put into
// bytes, taken from bytes, given to the KVM of another process. The bytes come from a file and are
// not trusted: sizes are checked here, what the values mean by the kernel, as for any guest, and
// what this host cannot do (cpu_match.h, MSRs) is refused before anything is set.
//
// Owner: Machine. The thread that calls may be any, while the vCPU's own is not in KVM_RUN.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "vmm/kvm/lists.h"

namespace hull::vmm {

struct VcpuState {
  uint32_t tsc_khz = 0;  // 0: unknown
  std::vector<kvm_cpuid_entry2> cpuid;
  kvm_regs registers{};
  kvm_sregs system{};
  kvm_xcrs extended_control{};
  KvmXsave extended{};
  kvm_debugregs debug{};
  kvm_lapic_state local_apic{};
  std::vector<kvm_msr_entry> msrs;
  kvm_mp_state run_state{};
  kvm_vcpu_events events{};
};

void put(ByteWriter& out, const VcpuState& state);
// Makes `in` fail when that is no vCPU.
VcpuState takeVcpuState(ByteReader& in);

void setCpuid(int vcpu, const std::vector<kvm_cpuid_entry2>& entries);

// `msrs`: Kvm::stateMsrs(). Both throw hull::Error; after a failed writeVcpuState the vCPU is in an
// undefined state and must not run. `tsc_khz`: the vCPU's own so far.
VcpuState readVcpuState(int vcpu, std::span<const uint32_t> msrs);
void writeVcpuState(int vcpu, const VcpuState& state, uint32_t tsc_khz);

// Tells a guest with KVM's clock that it stood still, so that its watchdogs keep quiet. Best
// effort.
void tellPaused(int vcpu) noexcept;

}  // namespace hull::vmm
