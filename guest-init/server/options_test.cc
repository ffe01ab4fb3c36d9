// What a container's options mean inside the guest: limits, usage, devices, sysctls, seccomp, a
// reaper as PID 1.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "guest-init/container/device_rules.h"
#include "guest-init/container/usage.h"
#include "guest-init/testing/machine.h"

namespace hull::guest {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class OptionsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = TestMachine::whyNot(); !reason.empty()) GTEST_SKIP() << reason;
    machine = std::make_unique<TestMachine>();
  }
  void create(const std::function<void(CreateContainer&)>& edit) {
    CreateContainer options = machine->containerOptions();
    edit(options);
    machine->ask(options);
  }
  std::unique_ptr<TestMachine> machine;
};

TEST_F(OptionsTest, LimitsCanBeChangedWhileItRunsAndUsageIsTold) {
  machine->create();
  auto start = machine->shell("read line; cat /sys/fs/cgroup/pids.max; read line");
  start.open_stdin = true;
  machine->ask<ProcessStarted>(start);
  SetLimits limits;
  limits.pids = 77;
  const Message reply = machine->request(limits);
  if (const auto* failed = std::get_if<Failure>(&reply)) {
    EXPECT_THAT(failed->message, HasSubstr("of the container's cgroup"));
    GTEST_SKIP() << "this host's cgroups lack a controller: " << failed->message;
  }
  const auto usage = machine->ask<Usage>(ReadUsage{});
  EXPECT_GE(usage.pids, 1u);
  EXPECT_EQ(usage.pids_limit, 77u);
  EXPECT_GT(usage.cpus, 0u);
  EXPECT_GT(usage.system_cpu_ns, usage.cpu_ns);
  EXPECT_GT(usage.memory_bytes, 0u);
  EXPECT_GT(usage.memory_limit_bytes, usage.memory_bytes);
  machine->ask(SignalProcess{"main", SIGKILL, false});
  EXPECT_EQ(machine->waitForExit("main").exit_code, 137);
}

TEST_F(OptionsTest, AReaperPassesSignalsOnReapsStrangersAndEndsAsItsCommand) {
  create([](CreateContainer& options) { options.init = true; });
  const auto outcome = machine->run(
      "cat /proc/1/comm; trap 'exit 5' TERM;"
      "(sh -c 'sleep 0.05' &); sleep 0.3; ls -d /proc/[0-9]* | wc -l;"
      "kill -TERM 1; sleep 10 & wait $!");
  EXPECT_EQ(outcome.exit_code, 5) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("hull-reaper\n"));
  EXPECT_EQ(machine->run("kill -KILL $$").exit_code, 137);
  EXPECT_EQ(machine->run("exit 0").exit_code, 0);
}

TEST_F(OptionsTest, AReapersMissingProgramIsToldAsSuch) {
  create([](CreateContainer& options) { options.init = true; });
  auto start = machine->shell("");
  start.arguments = {"/no/such"};
  const Message reply = machine->request(start);
  ASSERT_TRUE(std::holds_alternative<Failure>(reply));
  EXPECT_EQ(std::get<Failure>(reply).code, FailureCode::kNotFound);
}

TEST_F(OptionsTest, SysctlsAreSetBeforeTheyBecomeReadOnly) {
  create([](CreateContainer& options) {
    options.sysctls = {"kernel.domainname=of.the.test"};  // of the UTS namespace: no trace remains
  });
  const auto outcome = machine->run("cat /proc/sys/kernel/domainname");
  EXPECT_EQ(outcome.out, "of.the.test\n") << outcome.err;
}

TEST_F(OptionsTest, AnUnknownSysctlIsAFailureToStart) {
  create([](CreateContainer& options) { options.sysctls = {"kernel.nosuch=1"}; });
  const Message reply = machine->request(machine->shell("true"));
  ASSERT_TRUE(std::holds_alternative<Failure>(reply));
  EXPECT_THAT(std::get<Failure>(reply).message, HasSubstr("set sysctl kernel.nosuch=1"));
}

// Refuses mkdir(2) and mkdirat(2) with EPERM.
std::string noDirectories() {
  const sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdir, 1, 0),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  return {reinterpret_cast<const char*>(program), sizeof program};
}

TEST_F(OptionsTest, ASeccompFilterHoldsWithAndWithoutNewPrivileges) {
  machine->create();
  for (const bool no_new_privileges : {false, true}) {
    auto start = machine->shell("mkdir /tmp/x; grep -c Seccomp:.2 /proc/self/status");
    start.seccomp = noDirectories();
    start.no_new_privileges = no_new_privileges;
    const auto outcome = machine->run(start);
    EXPECT_THAT(outcome.err, HasSubstr("Operation not permitted"));
    EXPECT_EQ(outcome.out, "1\n");
  }
  auto broken = machine->shell("true");
  broken.seccomp = "123";
  const Message reply = machine->request(broken);
  ASSERT_TRUE(std::holds_alternative<Failure>(reply));
  EXPECT_EQ(std::get<Failure>(reply).code, FailureCode::kInvalid);
}

TEST_F(OptionsTest, DeviceRulesDecideWhatANodeIsGoodFor) {
  create([](CreateContainer& options) {
    options.device_rules = {{'a', -1, -1, 1}, {'c', 1, 3, 7},    {'c', 1, 5, 2}, {'c', 5, 0, 7},
                            {'c', 5, 2, 7},   {'c', 136, -1, 7}, {'c', 1, 8, 7}, {'c', 1, 9, 7}};
  });
  const auto start = machine->shell(
      "echo x > /dev/null && echo null; head -c 1 /dev/zero | wc -c;"
      "echo x > /dev/zero || echo read-only; head -c 1 /dev/full || echo closed;"
      "mknod /tmp/loop b 7 0 && echo made; head -c 1 /tmp/loop || echo closed");
  const auto outcome = machine->run(start);
  EXPECT_EQ(outcome.out, "null\n1\nread-only\nclosed\nmade\nclosed\n") << outcome.err;
}

TEST(DeviceProgramTest, EveryJumpStaysInTheProgram) {
  const auto code = deviceProgram({{'a', -1, -1, 7}, {'b', 7, -1, 3}, {'c', 1, 3, 1}});
  for (size_t i = 0; i < code.size(); ++i) {
    const auto offset = static_cast<int16_t>(code[i] >> 16 & 0xffff);
    EXPECT_GE(offset, 0);
    EXPECT_LT(i + 1 + static_cast<size_t>(offset), code.size() + 8);  // loads: offsets of fields
  }
}

TEST(UsageTest, KernelTextsAreReadAndNonsenseIsSkipped) {
  const auto counters = parseCounters("anon 4096\nfile x\n\nslab 7\nbroken");
  ASSERT_THAT(counters, SizeIs(2));
  EXPECT_EQ(counters[0].name, "anon");
  EXPECT_EQ(counters[1].value, 7u);
  const auto disks = parseBlockUsage("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n8:0\n\n");
  ASSERT_THAT(disks, SizeIs(1));
  EXPECT_EQ(disks[0].device, "254:0");
  EXPECT_EQ(disks[0].write_bytes, 2u);
  EXPECT_EQ(disks[0].reads, 3u);
  const auto networks = parseNetworkUsage(
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes packets errs\n"
      "    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
      "  eth0:12 3 4 5 0 0 0 0 67 8 9 10 0 0 0 0\n  eth1: 1 2\n");
  ASSERT_THAT(networks, SizeIs(1));
  EXPECT_EQ(networks[0].interface, "eth0");
  EXPECT_EQ(networks[0].rx_bytes, 12u);
  EXPECT_EQ(networks[0].tx_bytes, 67u);
  EXPECT_EQ(networks[0].tx_dropped, 10u);
  EXPECT_THAT(parseNetworkUsage(""), IsEmpty());
}

}  // namespace
}  // namespace hull::guest
