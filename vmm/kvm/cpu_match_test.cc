#include "vmm/kvm/cpu_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace hull::vmm {
namespace {

using ::testing::HasSubstr;
using Entry = kvm_cpuid_entry2;

Entry entry(uint32_t function, uint32_t index = 0) {
  Entry made{};
  made.function = function;
  made.index = index;
  return made;
}

// Vendor, features, extended features; APIC id 1.
std::vector<Entry> cpu() {
  std::vector<Entry> list{entry(0), entry(1), entry(7), entry(0xb), entry(0x80000001)};
  list[0].ebx = 0x68747541;
  list[1].ebx = 1u << 24;
  list[1].ecx = 0x80000001;
  list[2].ebx = 0x20;
  list[3].edx = 1;
  list[4].edx = 1u << 29;
  return list;
}

TEST(CpuMatch, SameCpuAndOneThatCanMoreMatch) {
  EXPECT_EQ(cpuMismatch(cpu(), cpu()), "");
  auto better = cpu();
  better[1].ecx |= 2;
  better[2].ecx |= 4;
  better.push_back(entry(0xd, 1));
  better.back().eax = 1;
  EXPECT_EQ(cpuMismatch(cpu(), better), "");
}

TEST(CpuMatch, EachMissingFeatureIsNamed) {
  auto worse = cpu();
  worse[2].ebx = 0;
  EXPECT_THAT(cpuMismatch(cpu(), worse), HasSubstr("CPUID leaf 0x7.0, bits 0x20"));
  worse = cpu();
  worse.pop_back();
  EXPECT_THAT(cpuMismatch(cpu(), worse), HasSubstr("0x80000001"));
  auto with_state = cpu();
  with_state.push_back(entry(0xd, 0));
  with_state.back().eax = 0x207;
  EXPECT_THAT(cpuMismatch(with_state, cpu()), HasSubstr("0xd.0, bits 0x207"));
}

TEST(CpuMatch, OtherVendorDoesNotMatch) {
  auto other = cpu();
  other[0].ebx = 0x756e6547;
  EXPECT_THAT(cpuMismatch(cpu(), other), HasSubstr("vendor"));
}

TEST(CpuMatch, OtherVcpuDoesNotMatch) {
  auto other = cpu();
  other[1].ebx = 0;
  EXPECT_THAT(cpuMismatch(other, cpu()), HasSubstr("another vCPU"));
  other = cpu();
  other[3].edx = 0;
  EXPECT_THAT(cpuMismatch(other, cpu()), HasSubstr("another vCPU"));
}

TEST(CpuMatch, CraftedListMatchesNothing) {
  EXPECT_NE(cpuMismatch({}, cpu()), "");
  auto all = cpu();
  for (Entry& each : all) each.eax = each.ecx = each.edx = UINT32_MAX;
  EXPECT_NE(cpuMismatch(all, cpu()), "");
}

}  // namespace
}  // namespace hull::vmm
