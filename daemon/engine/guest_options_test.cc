#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/testing/refusal.h"
#include "daemon/engine/container_spec.h"
#include "daemon/engine/cpu_placement.h"
#include "daemon/engine/seccomp_profile.h"

namespace hull::engine {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string limitRefusal(const char* text) {
  return refusal([&] { readLimits(json::parse(text)); });
}
std::string guestRefusal(const char* text, ErrorKind kind = ErrorKind::kInvalidArgument) {
  return refusal(kind, [&] { readGuest(json::parse(text)); });
}

TEST(LimitSpecTest, CpuLimitsAreQuotasOfAPeriod) {
  EXPECT_EQ(readLimits(json::object()).cpu_quota_us, 0u);
  EXPECT_EQ(readLimits({{"NanoCpus", 1'500'000'000}}).cpu_quota_us, 150'000u);
  EXPECT_EQ(readLimits({{"NanoCpus", 1'000'000}}).cpu_quota_us, 1'000u);
  const LimitSpec spec = readLimits({{"CpuQuota", 20'000}, {"CpuPeriod", 50'000}});
  EXPECT_EQ(spec.cpu_quota_us, 20'000u);
  EXPECT_EQ(spec.cpu_period_us, 50'000u);
  EXPECT_THAT(limitRefusal(R"({"NanoCpus":1,"CpuQuota":5000})"), HasSubstr("Conflicting options"));
  EXPECT_THAT(limitRefusal(R"({"CpuPeriod":10})"), HasSubstr("cfs period"));
  EXPECT_THAT(limitRefusal(R"({"CpuQuota":10})"), HasSubstr("cfs quota"));
  EXPECT_THAT(limitRefusal(R"({"CpuShares":-1})"), HasSubstr("CPU shares"));
  EXPECT_THAT(limitRefusal(R"({"Memory":10,"MemoryReservation":20})"),
              HasSubstr("memory reservation"));
}

TEST(LimitSpecTest, CpuListsAndDiskSizes) {
  EXPECT_THAT(readLimits({{"CpusetCpus", "0-2,5,1"}}).cpus, ElementsAre(0, 1, 2, 5));
  EXPECT_THAT(readLimits({{"CpusetCpus", ""}}).cpus, IsEmpty());
  for (const char* list : {"x", "3-1", "1,", ",1", "1--2", "99999", "-1", "0-4294967295"}) {
    EXPECT_THAT(refusal([&] { readLimits({{"CpusetCpus", list}}); }), HasSubstr("cpuset")) << list;
  }
  EXPECT_EQ(readLimits(json::parse(R"({"StorageOpt":{"size":"20G"}})")).writable_disk_bytes,
            uint64_t{20} << 30);
  EXPECT_THAT(limitRefusal(R"({"StorageOpt":{"size":"1m"}})"), HasSubstr("at least 16m"));
  EXPECT_THAT(limitRefusal(R"({"StorageOpt":{"foo":"1"}})"), HasSubstr("\"foo\""));
}

TEST(LimitSpecTest, DiskRatesAreOfTheContainersDiskWhateverItsPath) {
  const LimitSpec spec = readLimits(json::parse(
      R"({"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":2000}],
          "BlkioDeviceWriteBps":[{"Path":"/dev/vda","Rate":9000},{"Path":"/dev/b","Rate":5000}],
          "BlkioDeviceReadIOps":[{"Path":"/dev/x","Rate":0}],
          "BlkioDeviceWriteIOps":[{"Path":"/dev/x","Rate":7},{"Path":"/dev/x","Rate":0}]})"));
  EXPECT_EQ(spec.disks.read.bytes.per_second, 2000u);
  EXPECT_EQ(spec.disks.write.bytes.per_second, 5000u);
  EXPECT_EQ(spec.disks.read.operations.per_second, 0u);
  EXPECT_EQ(spec.disks.write.operations.per_second, 7u);
  EXPECT_EQ(readLimits(json::parse(R"({"BlkioDeviceReadBps":[]})")).disks, DiskLimits{});
  for (const char* bad :
       {"1", "{}", "[1]", R"([{"Rate":1}])", R"([{"Path":"sda","Rate":1}])",
        R"([{"Path":"/dev/a","Rate":-1}])", R"([{"Path":"/dev/a","Rate":"1"}])"}) {
    EXPECT_NE(limitRefusal((std::string(R"({"BlkioDeviceReadBps":)") + bad + "}").c_str()),
              "accepted")
        << bad;
  }
}

TEST(CpuPlacementTest, SharesBecomeNiceness) {
  EXPECT_EQ(nicenessOfShares(0), 0);
  EXPECT_EQ(nicenessOfShares(1024), 0);
  EXPECT_EQ(nicenessOfShares(512), 3);
  EXPECT_EQ(nicenessOfShares(2048), -3);
  EXPECT_EQ(nicenessOfShares(2), 19);
  EXPECT_EQ(nicenessOfShares(262'144), -20);
  LimitSpec limits;
  limits.cpus = {4095};
  EXPECT_THAT(refusal([&] { checkCpus(limits); }), HasSubstr("not available"));
}

TEST(GuestSpecTest, SysctlsNameFilesOfTheKernelAndNothingElse) {
  EXPECT_THAT(
      readGuest(json::parse(R"({"Sysctls":{"net.core.somaxconn":"9","vm.swappiness":"0"}})"))
          .sysctls,
      ElementsAre("net.core.somaxconn=9", "vm.swappiness=0"));
  for (const char* name : {"", "a/b", "..a", "a..b", ".a", "a b", "a\n"}) {
    EXPECT_THAT(refusal([&] {
                  readGuest({{"Sysctls", {{name, "1"}}}});
                }),
                HasSubstr("invalid sysctl"))
        << name;
  }
  EXPECT_THAT(guestRefusal(R"({"Sysctls":{"a":"1\n2"}})"), HasSubstr("invalid sysctl"));
  EXPECT_THAT(refusal([] { checkSysctl("net.core.somaxconn"); }), HasSubstr("ip_forward=1"));
  EXPECT_THAT(guestRefusal(R"({"OomScoreAdj":2000})"), HasSubstr("range"));
}

TEST(GuestSpecTest, DevicesOfTheGuestAreGivenAndTheHostsRefused) {
  const GuestSpec spec = readGuest(json::parse(
      R"({"Devices":[{"PathOnHost":"/dev/fuse","PathInContainer":"/dev/fuse"}],
          "DeviceCgroupRules":["c 42:* rw","b *:* m"]})"));
  EXPECT_THAT(spec.devices, ElementsAre("/dev/fuse"));
  const auto& rule = spec.device_rules.at(spec.device_rules.size() - 2);
  EXPECT_EQ(rule.type, 'c');
  EXPECT_EQ(rule.major_number, 42);
  EXPECT_EQ(rule.minor_number, -1);
  EXPECT_EQ(rule.access, 6u);
  EXPECT_THAT(readGuest({{"Privileged", true}}).device_rules, IsEmpty());
  EXPECT_THAT(guestRefusal(R"({"Devices":[{"PathOnHost":"/dev/sda"}]})", ErrorKind::kNotSupported),
              HasSubstr("sees no device of the host"));
  for (const char* bad :
       {"", "c", "x 1:1 r", "c 1:1", "c 1:1 q", "c a:1 r", "c -1:1 r", "c1:1 r"}) {
    EXPECT_THAT(refusal([&] {
                  readGuest({{"DeviceCgroupRules", {bad}}});
                }),
                HasSubstr("invalid device cgroup rule"))
        << bad;
  }
}

TEST(OptionWarningsTest, WhatDoesNothingIsSaid) {
  EXPECT_THAT(optionWarnings(json::object()), IsEmpty());
  EXPECT_THAT(optionWarnings({{"BlkioWeight", 10}, {"OomKillDisable", true}}),
              ElementsAre(HasSubstr("Block I/O weights"), HasSubstr("OomKillDisable")));
}

// --- seccomp ---

constexpr uint64_t kNoCapabilities = 0;

std::vector<sock_filter> compiled(const char* profile, uint64_t capabilities = kNoCapabilities) {
  const std::string bytes = compileSeccomp(profile, capabilities);
  std::vector<sock_filter> program(bytes.size() / sizeof(sock_filter));
  std::memcpy(program.data(), bytes.data(), bytes.size());
  return program;
}
bool returns(const std::vector<sock_filter>& program, uint32_t action) {
  return std::any_of(program.begin(), program.end(), [&](const sock_filter& at) {
    return at.code == (BPF_RET | BPF_K) && at.k == action;
  });
}

TEST(SeccompProfileTest, ActionsAndErrorsAreDockers) {
  const auto program = compiled(
      R"({"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
          "syscalls":[{"names":["read","nosuchcall"],"action":"SCMP_ACT_ALLOW"},
                      {"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13},
                      {"names":["personality"],"action":"SCMP_ACT_ALLOW",
                       "args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
                      {"names":["write"],"action":"SCMP_ACT_ALLOW",
                       "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},
                               {"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]})");
  EXPECT_TRUE(returns(program, SECCOMP_RET_ALLOW));
  EXPECT_TRUE(returns(program, SECCOMP_RET_ERRNO | 38));
  EXPECT_TRUE(returns(program, SECCOMP_RET_ERRNO | 13));
}

TEST(SeccompProfileTest, EntriesDependOnCapabilitiesAndArchitecture) {
  const char* profile =
      R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
          {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["rmdir"],"action":"SCMP_ACT_ERRNO","errnoRet":2,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["open"],"action":"SCMP_ACT_ERRNO","errnoRet":3,"includes":{"arches":["arm64"]}}]})";
  const auto with = compiled(profile, capabilitySet({"SYS_ADMIN"}, {"ALL"}, false));
  EXPECT_TRUE(returns(with, SECCOMP_RET_ERRNO | 1));
  EXPECT_FALSE(returns(with, SECCOMP_RET_ERRNO | 2));
  const auto without = compiled(profile);
  EXPECT_FALSE(returns(without, SECCOMP_RET_ERRNO | 1));
  EXPECT_TRUE(returns(without, SECCOMP_RET_ERRNO | 2));
  EXPECT_FALSE(returns(without, SECCOMP_RET_ERRNO | 3));
}

TEST(SeccompProfileTest, NonsenseIsRefused) {
  for (const char* bad :
       {"", "[]", "{", R"({"defaultAction":"NO"})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[1]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"x"}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":5000})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
            "action":"SCMP_ACT_KILL","args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
            "action":"SCMP_ACT_KILL","includes":{"caps":["CAP_NO"]}}]})"}) {
    EXPECT_NE(refusal([&] { compileSeccomp(bad, 0); }), "accepted") << bad;
  }
}

TEST(SeccompProfileTest, UnconfinedAndPrivilegedHaveNone) {
  const auto profileOf = [](const char* text) {
    return readGuest(json::parse(text)).seccomp_profile;
  };
  EXPECT_EQ(profileOf(R"({"SecurityOpt":["seccomp=unconfined"]})"), "");
  EXPECT_EQ(profileOf(R"({"SecurityOpt":["seccomp={}"]})"), "{}");
  EXPECT_EQ(profileOf(R"({"SecurityOpt":["seccomp={}"],"Privileged":true})"), "");
}

}  // namespace
}  // namespace hull::engine
