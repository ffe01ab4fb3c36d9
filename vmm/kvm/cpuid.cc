#include "vmm/kvm/cpuid.h"

#include <algorithm>
#include <bit>

namespace hull::vmm {

namespace {

constexpr uint32_t bit(unsigned number) {
  return uint32_t{1} << number;
}

// Intel SDM vol. 2A, CPUID.
constexpr uint32_t kFeatures = 1;
constexpr uint32_t kFeatureEcxDeadlineTimer = bit(24);
constexpr uint32_t kFeatureEcxHypervisor = bit(31);
constexpr uint32_t kFeatureEdxHtt = bit(28);
constexpr uint32_t kCacheParameters = 4;
constexpr uint32_t kPower = 6;
constexpr uint32_t kPowerEaxArat = bit(2);
constexpr uint32_t kTopology = 0xb;
constexpr uint32_t kTopologyV2 = 0x1f;
// AMD APM vol. 3, appendix E.
constexpr uint32_t kAmdSizes = 0x80000008;
constexpr uint32_t kAmdCacheProperties = 0x8000001d;
constexpr uint32_t kAmdTopology = 0x8000001e;
// Linux, Documentation/virt/kvm/x86/cpuid.rst; the timing leaf is VMware's, read by several guests.
constexpr uint32_t kKvmSignature = 0x40000000;
constexpr uint32_t kHypervisorTiming = 0x40000010;
constexpr uint32_t kApicBusKhz = 1000000;  // KVM's local APIC timer counts nanoseconds

uint32_t apicIdBits(uint32_t vcpus) {
  return static_cast<uint32_t>(std::bit_width(vcpus - 1));
}

void setField(uint32_t& word, unsigned shift, unsigned width, uint32_t value) {
  const uint32_t mask = (bit(width) - 1) << shift;
  word = (word & ~mask) | ((value << shift) & mask);
}

// Leaf 0xb and 0x1f: sub-leaf 0 is the thread level (1 thread), 1 the core level (all cores).
void setTopologyLevel(kvm_cpuid_entry2& entry, uint32_t index, uint32_t vcpus) {
  constexpr uint32_t kThreadLevel = 1;
  constexpr uint32_t kCoreLevel = 2;
  entry.eax = entry.index == 1 ? apicIdBits(vcpus) : 0;
  entry.ebx = entry.index == 0 ? 1 : entry.index == 1 ? vcpus : 0;
  entry.ecx = entry.index;
  if (entry.index == 0) entry.ecx |= kThreadLevel << 8;
  if (entry.index == 1) entry.ecx |= kCoreLevel << 8;
  entry.edx = index;
}

// Deterministic cache parameters: levels 1 and 2 are the core's own, level 3 is everybody's.
void setCacheSharing(kvm_cpuid_entry2& entry, uint32_t vcpus) {
  const uint32_t level = (entry.eax >> 5) & 7;
  setField(entry.eax, 14, 12, level >= 3 ? (bit(apicIdBits(vcpus)) - 1) : 0);
}

void adjust(kvm_cpuid_entry2& entry, uint32_t index, uint32_t vcpus) {
  switch (entry.function) {
    case kFeatures:
      entry.ecx |= kFeatureEcxHypervisor | kFeatureEcxDeadlineTimer;
      setField(entry.ebx, 24, 8, index);
      setField(entry.ebx, 16, 8, bit(apicIdBits(vcpus)));
      entry.edx = vcpus > 1 ? entry.edx | kFeatureEdxHtt : entry.edx & ~kFeatureEdxHtt;
      return;
    case kCacheParameters:
      setCacheSharing(entry, vcpus);
      setField(entry.eax, 26, 6, bit(apicIdBits(vcpus)) - 1);
      return;
    case kPower:
      entry.eax |= kPowerEaxArat;
      return;
    case kAmdSizes:
      setField(entry.ecx, 0, 8, vcpus - 1);
      setField(entry.ecx, 12, 4, apicIdBits(vcpus));
      return;
    case kAmdCacheProperties:
      setCacheSharing(entry, vcpus);
      return;
    case kAmdTopology:
      entry.eax = index;
      entry.ebx = index & 0xff;  // one thread per compute unit
      entry.ecx = 0;             // one node
      return;
    default:
      return;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> cpuidFor(std::span<const kvm_cpuid_entry2> supported, uint32_t index,
                                       uint32_t vcpus, uint32_t tsc_khz) {
  std::vector<kvm_cpuid_entry2> result;
  result.reserve(supported.size() + 3);
  bool has_topology = false;
  for (kvm_cpuid_entry2 entry : supported) {
    // Rebuilt below, complete; the host's own shape is none of the guest's business.
    if (entry.function == kTopology || entry.function == kTopologyV2) {
      has_topology = has_topology || entry.function == kTopology;
      continue;
    }
    if (entry.function == kHypervisorTiming) continue;
    if (entry.function == kKvmSignature && tsc_khz != 0) entry.eax = kHypervisorTiming;
    adjust(entry, index, vcpus);
    result.push_back(entry);
  }
  for (uint32_t level = 0; has_topology && level < 3; ++level) {
    kvm_cpuid_entry2 entry{};
    entry.function = kTopology;
    entry.index = level;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    setTopologyLevel(entry, index, vcpus);
    result.push_back(entry);
  }
  if (tsc_khz != 0) {
    kvm_cpuid_entry2 timing{};
    timing.function = kHypervisorTiming;
    timing.eax = tsc_khz;
    timing.ebx = kApicBusKhz;
    result.push_back(timing);
  }
  return result;
}

}  // namespace hull::vmm
