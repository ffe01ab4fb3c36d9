#include "vmm/kvm/cpu_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace hull::vmm {
namespace {

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx, uint32_t ecx,
                      uint32_t edx) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

// A host with every bit there is, so one from the future, and one that has just the model.
std::vector<kvm_cpuid_entry2> newest() {
  std::vector<kvm_cpuid_entry2> list;
  for (const uint32_t function :
       {0x1u, 0x7u, 0xau, 0xdu, 0x14u, 0x80000001u, 0x80000002u, 0x80000008u}) {
    list.push_back(leaf(function, 0, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX));
  }
  list.push_back(leaf(0x7, 1, 1, 1, 1, 1));
  list.push_back(leaf(0xd, 1, UINT32_MAX, 0, UINT32_MAX, UINT32_MAX));
  list.push_back(leaf(0xd, 2, 256, 576, 0, 0));
  list.push_back(leaf(0xd, 5, 64, 1088, 0, 0));
  return list;
}

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& list, uint32_t function,
                             uint32_t index = 0) {
  for (const auto& entry : list) {
    if (entry.function == function && entry.index == index) return &entry;
  }
  return nullptr;
}

bool has(uint32_t word, unsigned bit) {
  return (word >> bit & 1) != 0;
}

TEST(CpuModel, HidesWhatOldHostsLack) {
  const auto list = stableCpuModel(newest());
  EXPECT_FALSE(has(find(list, 7)->ebx, 16));          // AVX-512
  EXPECT_FALSE(has(find(list, 7)->ecx, 16));          // five-level page tables
  EXPECT_FALSE(has(find(list, 1)->ecx, 5));           // VMX
  EXPECT_FALSE(has(find(list, 0x80000001)->ecx, 2));  // SVM
  EXPECT_EQ(find(list, 7, 1), nullptr);
  EXPECT_EQ(find(list, 0x14), nullptr);
  EXPECT_EQ(find(list, 0xa)->eax, 0u);
  EXPECT_EQ(find(list, 0xd)->eax, 7u);
  EXPECT_EQ(find(list, 0xd)->ebx, 832u);
  EXPECT_EQ(find(list, 0xd, 5), nullptr);
  EXPECT_EQ(find(list, 0x80000008)->eax & 0xff, 40u);
}

TEST(CpuModel, KeepsTheBaselineAndSecurity) {
  const auto list = stableCpuModel(newest());
  for (const unsigned bit : {12u, 19u, 20u, 22u, 23u, 25u, 28u, 29u, 30u}) {
    EXPECT_TRUE(has(find(list, 1)->ecx, bit)) << bit;
  }
  EXPECT_TRUE(has(find(list, 7)->ebx, 5));            // AVX2
  EXPECT_TRUE(has(find(list, 7)->edx, 26));           // SPEC_CTRL
  EXPECT_TRUE(has(find(list, 7)->edx, 10));           // MD_CLEAR
  EXPECT_TRUE(has(find(list, 0x80000008)->ebx, 12));  // IBPB
  EXPECT_TRUE(has(find(list, 0x80000001)->edx, 29));  // long mode
  EXPECT_EQ(find(list, 1)->eax, UINT32_MAX);          // family and model choose mitigations
  std::string brand(16, '\0');
  std::memcpy(brand.data(), &find(list, 0x80000002)->eax, 4);
  EXPECT_EQ(brand.substr(0, 4), "Hull");
}

// Applied twice, or to a host that is the model itself: the same.
TEST(CpuModel, IsAFixedPoint) {
  const auto once = stableCpuModel(newest());
  const auto twice = stableCpuModel(once);
  ASSERT_EQ(once.size(), twice.size());
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(std::memcmp(&once[i], &twice[i], sizeof once[i]), 0) << i;
  }
}

}  // namespace
}  // namespace hull::vmm
