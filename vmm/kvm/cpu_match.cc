#include "vmm/kvm/cpu_match.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>

namespace hull::vmm {

namespace {

// Words whose bits are features, each for itself. Intel SDM vol. 2A, CPUID; AMD APM vol. 3,
// appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst (0x40000001).
struct FeatureWord {
  uint32_t function;
  uint32_t index;
  uint32_t kvm_cpuid_entry2::*word;
};
using Entry = kvm_cpuid_entry2;
constexpr std::array kFeatureWords{
    FeatureWord{1, 0, &Entry::ecx},          FeatureWord{1, 0, &Entry::edx},
    FeatureWord{6, 0, &Entry::eax},          FeatureWord{7, 0, &Entry::ebx},
    FeatureWord{7, 0, &Entry::ecx},          FeatureWord{7, 0, &Entry::edx},
    FeatureWord{7, 1, &Entry::eax},          FeatureWord{7, 1, &Entry::edx},
    FeatureWord{7, 2, &Entry::edx},          FeatureWord{0xd, 0, &Entry::eax},
    FeatureWord{0xd, 0, &Entry::edx},        FeatureWord{0xd, 1, &Entry::eax},
    FeatureWord{0xd, 1, &Entry::ecx},        FeatureWord{0x14, 0, &Entry::ebx},
    FeatureWord{0x40000001, 0, &Entry::eax}, FeatureWord{0x80000001, 0, &Entry::ecx},
    FeatureWord{0x80000001, 0, &Entry::edx}, FeatureWord{0x80000007, 0, &Entry::edx},
    FeatureWord{0x80000008, 0, &Entry::ebx}, FeatureWord{0x8000000a, 0, &Entry::edx},
    FeatureWord{0x8000001f, 0, &Entry::eax}, FeatureWord{0x80000021, 0, &Entry::eax},
};

constexpr uint32_t kVendor = 0;
constexpr uint32_t kIdentity = 1;  // EBX 31..24: the APIC id
constexpr uint32_t kApicIdShift = 24;
constexpr uint32_t kTopology = 0xb;  // EDX: the APIC id

Entry find(std::span<const Entry> list, uint32_t function, uint32_t index) {
  for (const Entry& entry : list) {
    if (entry.function == function && entry.index == index) return entry;
  }
  return {};
}

}  // namespace

std::string cpuMismatch(std::span<const kvm_cpuid_entry2> saved,
                        std::span<const kvm_cpuid_entry2> here) {
  const Entry old_vendor = find(saved, kVendor, 0);
  const Entry vendor = find(here, kVendor, 0);
  if (old_vendor.ebx != vendor.ebx || old_vendor.ecx != vendor.ecx ||
      old_vendor.edx != vendor.edx) {
    return "it was saved on a CPU of another vendor";
  }
  const auto apicId = [](std::span<const Entry> list) {
    return find(list, kIdentity, 0).ebx >> kApicIdShift;
  };
  if (apicId(saved) != apicId(here) ||
      find(saved, kTopology, 0).edx != find(here, kTopology, 0).edx) {
    return "it is another vCPU's";
  }
  for (const auto& [function, index, word] : kFeatureWords) {
    const uint32_t missing =
        find(saved, function, index).*word & ~(find(here, function, index).*word);
    if (missing == 0) continue;
    return fmt::format(
        "it uses CPU features that this host lacks (CPUID leaf {:#x}.{}, bits {:#x}; VMs with "
        "stable_cpu move between hosts)",
        function, index, missing);
  }
  return {};
}

}  // namespace hull::vmm
