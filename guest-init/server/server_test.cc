// hull-init's server as a whole, driven over its sockets.

#include "guest-init/server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest-init/testing/machine.h"

namespace hull::guest {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using Kind = OpenStream::Kind;

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = TestMachine::whyNot(); !reason.empty()) GTEST_SKIP() << reason;
    machine = std::make_unique<TestMachine>();
  }
  Failure failure(const Message& message) {
    const Message reply = machine->request(message);
    const auto* failed = std::get_if<Failure>(&reply);
    EXPECT_TRUE(failed) << "message " << reply.index();
    return failed ? *failed : Failure{};
  }
  std::string sh(const std::string& script) {
    const auto outcome = machine->run(script);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
  std::unique_ptr<TestMachine> machine;
};

TEST_F(ServerTest, HelloAnswersWithTheKernel) {
  const auto reply = machine->ask<HelloReply>(Hello{}, "");
  EXPECT_EQ(reply.version, kProtocolVersion);
  EXPECT_FALSE(reply.kernel_release.empty());
  EXPECT_EQ(failure(Hello{kProtocolVersion + 1, 0}).code, FailureCode::kInvalid);
}

TEST_F(ServerTest, AProcessRunsAndItsOutputAndExitCodeArrive) {
  machine->create();
  const auto outcome = machine->run("echo out; echo err >&2; exit 7");
  EXPECT_EQ(outcome.out, "out\n");
  EXPECT_EQ(outcome.err, "err\n");
  EXPECT_EQ(outcome.exit_code, 7);
}

TEST_F(ServerTest, TheMainProcessIsPidOneInNamespacesOfItsOwn) {
  machine->create();
  EXPECT_EQ(sh("echo $$; hostname; cat /etc/hostname; cat /etc/hosts; cat /etc/resolv.conf"),
            "1\nbox\nbox\n127.0.0.1 localhost\nnameserver 192.0.2.1\n");
}

TEST_F(ServerTest, TheFileSystemsOfAContainerAreThere) {
  machine->create();
  EXPECT_EQ(
      sh("for t in null zero full random urandom tty; do test -c /dev/$t || echo $t; done;"
         "for l in fd stdin ptmx; do readlink /dev/$l; done;"
         "stat -c %a /dev/shm; stat -f -c %T /dev/shm; ls /dev/mqueue /dev/pts"),
      "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n1777\ntmpfs\n/dev/mqueue:\n\n/dev/pts:\nptmx\n");
  EXPECT_NE(machine->run("touch /sys/x").exit_code, 0);
  EXPECT_NE(machine->run("echo 1 > /proc/sys/kernel/pid_max").exit_code, 0);
  EXPECT_EQ(sh("cat /proc/kcore | wc -c"), "0\n");
  EXPECT_EQ(sh("grep ^0 /proc/self/cgroup"), "0::/\n");
}

TEST_F(ServerTest, AReadOnlyRootRefusesWrites) {
  auto options = machine->containerOptions();
  options.read_only_root = true;
  options.mounts = {{Mount::Kind::kTmpfs, "", "/scratch/deep", "size=1m,mode=0700"}};
  machine->ask(options);
  EXPECT_NE(machine->run("touch /x").exit_code, 0);
  EXPECT_EQ(sh("touch /scratch/deep/x && stat -c %a /scratch/deep; cat /etc/hosts"),
            "700\n127.0.0.1 localhost\n");
}

TEST_F(ServerTest, ProgramsThatCannotRunAreToldApart) {
  machine->create();
  auto start = machine->shell("");
  start.arguments = {"no-such-program"};
  Failure failed = failure(start);
  EXPECT_EQ(failed.code, FailureCode::kNotFound);
  EXPECT_EQ(failed.message, "exec: \"no-such-program\": executable file not found in $PATH");
  start.arguments = {"/no/such"};
  failed = failure(start);
  EXPECT_EQ(failed.code, FailureCode::kNotFound);
  EXPECT_EQ(failed.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
  start.arguments = {"/etc/not-a-program"};
  failed = failure(start);
  EXPECT_EQ(failed.code, FailureCode::kPermission);
  EXPECT_THAT(failed.message, HasSubstr("permission denied"));
  start.arguments = {"/etc"};
  failed = failure(start);
  EXPECT_EQ(failed.code, FailureCode::kPermission);
  EXPECT_THAT(failed.message, HasSubstr("is a directory"));
  start = machine->shell("true");
  start.user = "nobody-here";
  failed = failure(start);
  EXPECT_EQ(failed.code, FailureCode::kInvalid);
  EXPECT_EQ(failed.message, "unable to find user nobody-here: no matching entries in passwd file");
  EXPECT_EQ(sh("echo still fine"), "still fine\n");
}

TEST_F(ServerTest, UsersGroupsHomeAndWorkingDirectory) {
  machine->create();
  auto start = machine->shell("id; echo $HOME; pwd; echo x > /dev/stdout");
  start.user = "web";
  start.working_directory = "/made/for/this";
  start.additional_groups = {"42"};
  const auto outcome = machine->run(start);
  EXPECT_EQ(outcome.out,
            "uid=1000(web) gid=1001(web) groups=42,1001(web),2000(extra)\n/home/web\n"
            "/made/for/this\nx\n");
  EXPECT_EQ(outcome.err, "");
}

TEST_F(ServerTest, CapabilitiesLimitsAndPrivilegesAreSet) {
  machine->create();
  auto start = machine->shell(
      "grep -E 'Cap|NoNewPrivs|SigIgn|SigBlk' /proc/self/status; ulimit -n; cat "
      "/proc/self/oom_score_adj");
  start.no_new_privileges = true;
  start.rlimits = {{7, 123, 456}};
  EXPECT_EQ(machine->run(start).out,
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
            "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n"
            "CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n123\n0\n");
  start.user = "1000";
  EXPECT_THAT(machine->run(start).out, HasSubstr("CapEff:\t0000000000000000\n"));
}

TEST_F(ServerTest, InputReachesTheProcessAndItsEndToo) {
  machine->create();
  auto start = machine->shell("wc -c; echo done");
  start.open_stdin = true;
  EXPECT_EQ(machine->run(start, std::string(1 << 20, 'x')).out, "1048576\ndone\n");
}

TEST_F(ServerTest, WithoutInputItIsTheNullDevice) {
  machine->create();
  EXPECT_EQ(sh("wc -c; readlink /proc/self/fd/0"), "0\n/dev/null\n");
}

TEST_F(ServerTest, ADetachedInputGoesOnLater) {
  machine->create();
  auto start = machine->shell("cat");
  start.open_stdin = true;
  machine->ask<ProcessStarted>(start);
  const Fd out = machine->open(Kind::kStdout, "main");
  char buffer[4] = {};
  {
    const Fd in = machine->open(Kind::kStdin, "main");
    writeFull(in.get(), "one\n");
    ASSERT_EQ(readFull(out.get(), std::as_writable_bytes(std::span(buffer))), 4u);
  }
  const Fd in = machine->open(Kind::kStdin, "main");
  writeFull(in.get(), "two\n");
  shutdown(in.get(), SHUT_WR);
  EXPECT_EQ(readToEnd(out.get()), "two\n");
  EXPECT_EQ(machine->waitForExit("main").exit_code, 0);
}

TEST_F(ServerTest, OutputIsKeptUntilAcknowledgedAndTheWriterBlocks) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell("head -c 1000000 /dev/zero; echo end"));
  std::string got;
  const auto acknowledge = [](int fd, uint64_t total) {
    writeFull(fd, std::as_bytes(std::span(&total, 1)));
  };
  {
    const Fd out = machine->open(Kind::kStdout, "main");
    got.resize(100000);
    ASSERT_EQ(readFull(out.get(), std::as_writable_bytes(std::span(got))), got.size());
    acknowledge(out.get(), 100000);
  }
  // The connection is gone; what was not acknowledged is still there.
  Message reply;
  machine->open(Kind::kStdout, "main", 5000000, "", &reply);
  EXPECT_TRUE(std::holds_alternative<Failure>(reply));
  const Fd out = machine->open(Kind::kStdout, "main", 100000);
  uint64_t total = 100000;
  std::string piece(65536, '\0');
  std::string tail;
  while (const size_t size = readSome(out.get(), std::as_writable_bytes(std::span(piece)))) {
    total += size;
    tail = piece.substr(0, size);
    acknowledge(out.get(), total);
  }
  EXPECT_EQ(total, 1000004u);
  EXPECT_THAT(tail, EndsWith("end\n"));
  EXPECT_EQ(machine->waitForExit("main").exit_code, 0);
}

TEST_F(ServerTest, ATerminalIsATerminal) {
  machine->create();
  auto start = machine->shell(
      "test -t 0 && test -t 1 && stty size; tty; test -c /dev/console; read x; echo got $x; "
      "stty size");
  start.terminal = true;
  start.rows = 24;
  start.columns = 80;
  start.open_stdin = true;
  machine->ask<ProcessStarted>(start);
  machine->ask(ResizeTerminal{"main", 50, 132});
  const Fd in = machine->open(Kind::kStdin, "main");
  writeFull(in.get(), "hello\n");
  const auto outcome = machine->finish("main");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("/dev/pts/0\r\n"));
  EXPECT_THAT(outcome.out, HasSubstr("got hello\r\n50 132\r\n"));
}

TEST_F(ServerTest, ExecJoinsTheContainerAndDiesWithIt) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell("touch /tmp/mark; exec sleep 1000"));
  const auto exec = machine->run(
      machine->shell("while ! test -e /tmp/mark; do :; done; hostname; ps | grep -c '[s]leep'; "
                     "exit 3",
                     "e1"));
  EXPECT_EQ(exec.out, "box\n1\n");
  EXPECT_EQ(exec.exit_code, 3);
  machine->ask<ProcessStarted>(machine->shell("exec sleep 1000", "e2"));
  const auto table = machine->ask<ProcessTable>(ListProcesses{});
  ASSERT_EQ(table.titles.size(), 8u);
  ASSERT_EQ(table.rows.size(), 2u);
  EXPECT_EQ(table.rows[0].back(), "sleep 1000");
  EXPECT_EQ(table.rows[0][0], "root");
  machine->ask(SignalProcess{"main", 9, false});
  EXPECT_EQ(machine->waitForExit("main").exit_code, 137);
  EXPECT_EQ(machine->waitForExit("e2").exit_code, 137);
  EXPECT_EQ(failure(machine->shell("true", "e3")).code, FailureCode::kConflict);
}

TEST_F(ServerTest, ABackgroundGrandchildHoldsTheOutputOfAnExecOpen) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell("exec sleep 1000"));
  machine->ask<ProcessStarted>(
      machine->shell("(while test ! -e /tmp/go; do sleep 0.01; done; echo late) & exit 0", "e"));
  EXPECT_EQ(machine->waitForExit("e").exit_code, 0);
  const Fd out = machine->open(Kind::kStdout, "e");
  machine->run(machine->shell("touch /tmp/go", "f"));
  EXPECT_EQ(readToEnd(out.get()), "late\n");
}

TEST_F(ServerTest, SignalsPauseAndResume) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell(
      "trap 'echo caught; exit 5' TERM; touch /tmp/up; while :; do sleep 0.01; done"));
  machine->run(machine->shell("while ! test -e /tmp/up; do sleep 0.01; done", "e"));
  machine->ask(Pause{});
  machine->ask(SignalProcess{"main", 15, false});
  machine->ask(Resume{});
  const auto outcome = machine->finish("main");
  EXPECT_EQ(outcome.out, "caught\n");
  EXPECT_EQ(outcome.exit_code, 5);
}

TEST_F(ServerTest, StateOutlivesTheControlConnection) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell("exit 9"));
  machine->waitForExit("main");
  machine->reconnect();
  const auto state = machine->ask<StateReply>(ListState{}, "");
  ASSERT_EQ(state.containers.size(), 1u);
  ASSERT_EQ(state.containers[0].processes.size(), 1u);
  EXPECT_FALSE(state.containers[0].processes[0].running);
  EXPECT_EQ(state.containers[0].processes[0].exit_code, 9);
}

TEST_F(ServerTest, RemovingKillsUnmountsAndAllowsTheNameAgain) {
  machine->create();
  EXPECT_EQ(failure(machine->containerOptions()).code, FailureCode::kConflict);
  machine->ask<ProcessStarted>(machine->shell("echo kept > /kept; exec sleep 1000"));
  machine->run(machine->shell("while ! test -s /kept; do :; done", "e"));
  machine->ask(RemoveContainer{});
  EXPECT_EQ(machine->waitForExit("main").exit_code, 137);
  EXPECT_EQ(failure(RemoveContainer{}).code, FailureCode::kNotFound);
  machine->create();
  EXPECT_EQ(sh("test -e /kept && cat /kept"), "kept\n") << "the writable disk is the container's";
}

TEST_F(ServerTest, LimitsBindAndRunningOutOfMemoryIsTold) {
  if (!wantsVmHost()) GTEST_SKIP() << "needs the guest kernel's cgroup controllers";
  auto options = machine->containerOptions();
  options.memory_bytes = 32 << 20;
  options.pids_limit = 20;
  machine->ask(options);
  const auto full = machine->run("exec tail -c 100000000 /dev/zero");
  EXPECT_EQ(full.exit_code, 137);
  EXPECT_TRUE(full.out_of_memory);
  EXPECT_FALSE(machine->run("exit 137").out_of_memory);
  EXPECT_THAT(machine->run("i=0; while test $i -lt 40; do sleep 1000 & i=$((i+1)); done").err,
              HasSubstr("fork"));
}

TEST_F(ServerTest, TheNetworkIsConfigured) {
  if (wantsVmHost()) GTEST_SKIP() << "this machine has no network card";
  machine->create();
  EXPECT_THAT(failure(ConfigureNetwork{"300.1.1.1", 24, "", 1500}).message,
              HasSubstr("bad address"));
  EXPECT_EQ(failure(ConfigureNetwork{"10.0.0.2", 33, "", 1500}).code, FailureCode::kInvalid);
  machine->ask(ConfigureNetwork{});
  machine->ask(ConfigureNetwork{"10.11.0.2", 24, "10.11.0.1", 1400});
  const std::string out = sh("ip -4 addr show eth0; ip route");
  EXPECT_THAT(out, HasSubstr("mtu 1400"));
  EXPECT_THAT(out, HasSubstr("inet 10.11.0.2/24 brd 10.11.0.255"));
  EXPECT_THAT(out, HasSubstr("default via 10.11.0.1 dev eth0"));
}

TEST_F(ServerTest, ANetworkCardMovesToAnotherNetworkAndOutOfAll) {
  if (wantsVmHost()) GTEST_SKIP() << "this machine has no network card";
  machine->create();
  ConfigureNetwork card{"10.11.0.2", 24, "10.11.0.1", 1400};
  machine->ask(card);
  card.interface = "eth7";
  EXPECT_EQ(failure(card).code, FailureCode::kNotFound);
  card = {"10.12.0.9", 16, "", 1500};
  card.address6 = "fd00:12::9";
  card.prefix_length6 = 64;
  card.gateway6 = "fd00:12::1";
  machine->ask(card);
  machine->ask(WriteNameFiles{"10.12.0.9 box\n", "nameserver 10.12.0.1\n"});
  const std::string out =
      sh("ip addr show eth0; ip route; ip -6 route; cat /etc/hosts /etc/resolv.conf");
  EXPECT_THAT(out, HasSubstr("inet 10.12.0.9/16"));
  EXPECT_THAT(out, Not(HasSubstr("10.11.0")));
  EXPECT_THAT(out, Not(HasSubstr("default via 10.")));
  if (out.find("inet6") != std::string::npos) {  // a kernel with IPv6
    EXPECT_THAT(out, HasSubstr("inet6 fd00:12::9/64"));
    EXPECT_THAT(out, HasSubstr("default via fd00:12::1 dev eth0"));
  }
  EXPECT_THAT(out, HasSubstr("10.12.0.9 box\nnameserver 10.12.0.1\n"));
  machine->ask(ConfigureNetwork{});
  const std::string after = sh("ip addr show eth0");
  EXPECT_THAT(after, Not(HasSubstr("inet")));
  EXPECT_THAT(after, Not(HasSubstr("UP")));
}

TEST_F(ServerTest, PowerOffKillsUnmountsAndEndsTheMachine) {
  machine->create();
  machine->ask<ProcessStarted>(machine->shell("trap '' TERM; exec sleep 1000"));
  machine->ask(PowerOff{}, "");
  EXPECT_EQ(machine->waitForPowerOff(), "poweroff");
}

TEST_F(ServerTest, BadRequestsFailAndBadBytesOnlyCloseTheConnection) {
  EXPECT_EQ(failure(machine->shell("true")).code, FailureCode::kNotFound);
  EXPECT_EQ(failure(Ok{}).code, FailureCode::kInvalid);
  auto options = machine->containerOptions();
  EXPECT_TRUE(std::holds_alternative<Failure>(machine->request(options, "../x")));
  options.root_disk = "/dev/no-such-disk";
  EXPECT_THAT(failure(options).message, HasSubstr("mount /dev/no-such-disk"));
  machine->create();
  EXPECT_EQ(sh("echo works"), "works\n");
}

}  // namespace
}  // namespace hull::guest
