// What each vCPU says about itself: KVM's supported features, plus the topology of this VM (one
// package, one thread per core, APIC id = vCPU index) and what the guest needs to boot without
// calibrating timers. Pure function of its inputs. Any thread.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

namespace hull::vmm {

std::vector<kvm_cpuid_entry2> cpuidFor(std::span<const kvm_cpuid_entry2> supported, uint32_t index,
                                       uint32_t vcpus, uint32_t tsc_khz);

}  // namespace hull::vmm
