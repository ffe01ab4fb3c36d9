#include "vmm/kvm/cpuid.h"

#include <gtest/gtest.h>

namespace hull::vmm {
namespace {

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index = 0, uint32_t eax = 0) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  return entry;
}

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& list, uint32_t function,
                             uint32_t index = 0) {
  for (const auto& entry : list) {
    if (entry.function == function && entry.index == index) return &entry;
  }
  return nullptr;
}

const std::vector<kvm_cpuid_entry2> kHost{leaf(0),
                                          leaf(1),
                                          leaf(4, 0, 1 << 5),
                                          leaf(4, 3, 3 << 5),
                                          leaf(6),
                                          leaf(0xb, 0),
                                          leaf(0xb, 1),
                                          leaf(0x1f, 0),
                                          leaf(0x40000000, 0, 0x40000001),
                                          leaf(0x80000008),
                                          leaf(0x8000001e)};

TEST(Cpuid, GuestSeesAHypervisorAndNeedsNoCalibration) {
  const auto list = cpuidFor(kHost, 0, 1, 2400000);
  const auto* features = find(list, 1);
  ASSERT_NE(features, nullptr);
  EXPECT_TRUE((features->ecx >> 31 & 1) != 0);  // hypervisor
  EXPECT_TRUE((features->ecx >> 24 & 1) != 0);  // TSC deadline
  EXPECT_EQ(features->edx >> 28 & 1, 0u);       // one CPU: no HTT
  EXPECT_EQ(find(list, 6)->eax & 4, 4u);        // ARAT
  EXPECT_EQ(find(list, 0x40000000)->eax, 0x40000010u);
  ASSERT_NE(find(list, 0x40000010), nullptr);
  EXPECT_EQ(find(list, 0x40000010)->eax, 2400000u);
}

TEST(Cpuid, EachCpuHasItsOwnApicId) {
  const auto list = cpuidFor(kHost, 2, 3, 0);
  EXPECT_EQ(find(list, 1)->ebx >> 24, 2u);
  EXPECT_EQ(find(list, 1)->ebx >> 16 & 0xff, 4u);  // ids rounded up to a power of two
  EXPECT_EQ(find(list, 1)->edx >> 28 & 1, 1u);
  EXPECT_EQ(find(list, 0xb, 0)->edx, 2u);
  EXPECT_EQ(find(list, 0xb, 1)->ebx, 3u);
  EXPECT_EQ(find(list, 0xb, 1)->eax, 2u);
  EXPECT_EQ(find(list, 0xb, 1)->ecx, 0x201u);
  EXPECT_EQ(find(list, 0x8000001e)->eax, 2u);
  EXPECT_EQ(find(list, 0x80000008)->ecx & 0xff, 2u);
  EXPECT_EQ(find(list, 4, 3)->eax >> 14 & 0xfff, 3u);  // the last level is shared
  EXPECT_EQ(find(list, 4, 0)->eax >> 14 & 0xfff, 0u);
  EXPECT_EQ(find(list, 0x1f), nullptr);
  EXPECT_EQ(find(list, 0x40000010), nullptr);  // frequency unknown
}

}  // namespace
}  // namespace hull::vmm
