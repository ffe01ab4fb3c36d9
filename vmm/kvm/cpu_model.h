// The stable CPU model: what every x86-64-v3 host has (AVX2 and what came with it, about 2013
// Intel, 2015 AMD), and nothing else, so that a VM saved on one host of a vendor runs on another.
// Security features stay visible whatever they are, and so do family, model and stepping: the
// guest's kernel chooses its mitigations by them.
//
// Pure function of the host's list. Any thread.
#pragma once

#include <linux/kvm.h>

#include <vector>

namespace hull::vmm {

// Hides what is not in the model from KVM_GET_SUPPORTED_CPUID's list.
std::vector<kvm_cpuid_entry2> stableCpuModel(std::vector<kvm_cpuid_entry2> supported);

}  // namespace hull::vmm
