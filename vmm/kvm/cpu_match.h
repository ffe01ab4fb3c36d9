// Whether a guest that was saved with one CPU can go on with another: it has found out about
// features at its start and never asks again, so each of them must be there.
//
// Pure function of its inputs. Any thread.
#pragma once

#include <linux/kvm.h>

#include <span>
#include <string>

namespace hull::vmm {

// Empty: it can. Otherwise what stands against it. `here` is what this host would give that vCPU.
std::string cpuMismatch(std::span<const kvm_cpuid_entry2> saved,
                        std::span<const kvm_cpuid_entry2> here);

}  // namespace hull::vmm
