#include "vmm/kvm/cpu_model.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string_view>

namespace hull::vmm {

namespace {

constexpr uint32_t bits(std::initializer_list<unsigned> numbers) {
  uint32_t mask = 0;
  for (const unsigned number : numbers) mask |= uint32_t{1} << number;
  return mask;
}

// What stays of each register of a leaf; a leaf that is not named stays whole. Bit names: Intel SDM
// vol. 2A, CPUID; AMD APM vol. 3, appendix E.
struct Mask {
  uint32_t function;
  uint32_t index;
  uint32_t eax, ebx, ecx, edx;
};
constexpr uint32_t kAll = UINT32_MAX;

constexpr std::array kMasks{
    // sse3 pclmul ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt deadline aes xsave osxsave
    // avx f16c rdrand hypervisor; fpu…pse36 clflush mmx fxsr sse sse2 htt
    Mask{1, 0, kAll, kAll,
         bits({0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}),
         bits({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 28})},
    // fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap; umip; md_clear spec_ctrl stibp
    // l1d_flush arch_capabilities core_capabilities ssbd
    Mask{7, 0, 0, bits({0, 3, 5, 7, 8, 9, 10, 18, 19, 20}), bits({2}),
         bits({10, 26, 27, 28, 29, 31})},
    Mask{0xa, 0, 0, 0, 0, 0},             // performance counters
    Mask{0xd, 1, bits({0}), kAll, 0, 0},  // xsaveopt
    // lahf lzcnt 3dnowprefetch; the first word again (AMD), syscall nx pdpe1gb rdtscp lm
    Mask{0x80000001, 0, kAll, 0, bits({0, 5, 8}),
         bits({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 23, 24, 26, 27, 29})},
    // ibpb ibrs stibp, always-on variants, ssbd virt_ssbd ssb_no psfd
    Mask{0x80000008, 0, kAll, bits({12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28}), kAll, 0},
};

constexpr uint32_t kExtendedState = 0xd;
constexpr uint32_t kX87SseAvx = bits({0, 1, 2});
constexpr uint32_t kX87SseAvxBytes = 832;  // legacy area 512, header 64, AVX 256
constexpr uint32_t kBrandFirst = 0x80000002, kBrandLast = 0x80000004;
constexpr uint32_t kSizes = 0x80000008;
constexpr uint32_t kPhysicalBits = 40;

// Processor trace, AMX tiles, SGX, features of leaf 7's later sub-leaves and of AMD's newer leaves.
bool isHidden(const kvm_cpuid_entry2& entry) {
  switch (entry.function) {
    case 7:
      return entry.index > 0;
    case kExtendedState:
      return entry.index > 2;
    case 0x12:
    case 0x14:
    case 0x1d:
    case 0x1e:
    case 0x24:
    case 0x8000000a:  // SVM
    case 0x8000001a:
    case 0x8000001b:
    case 0x8000001f:  // memory encryption
    case 0x80000022:
      return true;
    default:
      return false;
  }
}

void setBrand(kvm_cpuid_entry2& entry) {
  constexpr std::string_view kBrand = "Hull stable CPU";
  std::array<char, 48> text{};
  std::copy(kBrand.begin(), kBrand.end(), text.begin());
  const char* part = text.data() + (entry.function - kBrandFirst) * 16;
  std::memcpy(&entry.eax, part, 4);
  std::memcpy(&entry.ebx, part + 4, 4);
  std::memcpy(&entry.ecx, part + 8, 4);
  std::memcpy(&entry.edx, part + 12, 4);
}

void limit(kvm_cpuid_entry2& entry) {
  for (const Mask& mask : kMasks) {
    if (mask.function != entry.function || mask.index != entry.index) continue;
    entry.eax &= mask.eax;
    entry.ebx &= mask.ebx;
    entry.ecx &= mask.ecx;
    entry.edx &= mask.edx;
  }
  if (entry.function == kExtendedState && entry.index == 0) {
    entry.eax &= kX87SseAvx;
    entry.ebx = entry.ecx = kX87SseAvxBytes;
    entry.edx = 0;
  }
  if (entry.function >= kBrandFirst && entry.function <= kBrandLast) setBrand(entry);
  if (entry.function == kSizes) {
    const uint32_t physical = std::min(entry.eax & 0xff, kPhysicalBits);
    entry.eax = (entry.eax & ~uint32_t{0xff}) | physical;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> stableCpuModel(std::vector<kvm_cpuid_entry2> supported) {
  std::erase_if(supported, isHidden);
  for (kvm_cpuid_entry2& entry : supported) limit(entry);
  return supported;
}

}  // namespace hull::vmm
