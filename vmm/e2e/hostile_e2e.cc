// Attacks on the real hull-vmm by a guest that is nothing else (hostile_guest.c), and a look at the
// jail of a running one. The verdict: that VM alone ends, as it must and with the reason, in
// bounded output; a neighbour does not notice. Needs KVM, of any kind, and HULL_BIN (folder with
// hull-vmm and vmm-hostile-guest); each test says so and is skipped otherwise. Run by ctest, and by
// tests/hostile/vmm_hostile.sh where Linux guests run, too.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "vmm/e2e/hostile_vm.h"
#include "vmm/jail/jail.h"

namespace hull::vmm {
namespace {

using testing::HasSubstr;

constexpr size_t kMaxLogBytes = 32 << 10;  // of one attack; the VMM limits lines per second

class HostileGuest : public testing::Test, protected HostileVm {
 protected:
  void SetUp() override {
    if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
    prepare();
  }
  void expectHeld(const std::string& task) {
    const Result result = boot(task);
    EXPECT_EQ(result.reason, "poweroff") << result.detail << "\n" << result.console << result.log;
    EXPECT_LT(result.log.size(), kMaxLogBytes);
  }
};

TEST_F(HostileGuest, RegistersOfAllWidths) {
  expectHeld("widths");
}

TEST_F(HostileGuest, PortAndMmioStorms) {
  expectHeld("storms");
}

TEST_F(HostileGuest, StatusOutOfOrder) {
  expectHeld("status");
}

TEST_F(HostileGuest, QueuesRewrittenAndMisplaced) {
  expectHeld("queues");
}

TEST_F(HostileGuest, BrokenRings) {
  expectHeld("rings");
}

TEST_F(HostileGuest, ResetDuringRequests) {
  expectHeld("reset");
}

TEST_F(HostileGuest, SerialFlood) {
  expectHeld("serial-flood");
}

TEST_F(HostileGuest, ConsoleFloodIsCutOff) {
  config_.early_serial = false;
  const Result result = boot("console-flood");
  EXPECT_EQ(result.reason, "poweroff") << result.detail;
  EXPECT_GT(result.console.size(), 1u << 20);  // the burst …
  EXPECT_LT(result.console.size(), 3u << 20);  // … and little of the other 3 MiB
  EXPECT_LT(result.log.size(), kMaxLogBytes);
}

TEST_F(HostileGuest, TripleFaultEndsTheVm) {
  const Result result = boot("triple-fault");
  EXPECT_EQ(result.reason, "triple-fault");
  EXPECT_EQ(result.status, 11);
}

// Instructions fetched from a device: KVM gives up, and so does that VM.
TEST_F(HostileGuest, UnhandledExitEndsTheVm) {
  const Result result = boot("run-registers");
  EXPECT_THAT(result.reason, testing::AnyOf("error", "triple-fault"));
  EXPECT_NE(result.detail, "");
}

// A vCPU that halts, or never exits by itself, can be stopped from outside.
TEST_F(HostileGuest, HaltedAndSpinningVcpusCanBeStopped) {
  for (const char* task : {"wait", "spin"}) {
    HostileVm vm;
    ASSERT_EQ(vm.missing(), "");
    vm.prepare();
    vm.start(task);
    vm.waitReady();
    EXPECT_EQ(vm.command(R"({"command":"pause"})"), R"({"ok":true})");
    EXPECT_EQ(vm.command(R"({"command":"resume"})"), R"({"ok":true})");
    EXPECT_EQ(vm.command(R"({"command":"stop"})"), R"({"ok":true})");
    EXPECT_EQ(vm.finish().reason, "terminated");
  }
}

TEST_F(HostileGuest, NeighbourDoesNotNotice) {
  HostileVm neighbour;
  ASSERT_EQ(neighbour.missing(), "");
  neighbour.prepare();
  neighbour.start("mark");
  boot("storms");
  const size_t before = VmmUnderTest::contents(neighbour.console_.get()).size();
  for (int i = 0; i < 1000; ++i) {
    if (VmmUnderTest::contents(neighbour.console_.get()).size() > before) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_GT(VmmUnderTest::contents(neighbour.console_.get()).size(), before);
  neighbour.vmm_->kill(SIGTERM);
  const Result result = neighbour.finish();
  EXPECT_EQ(result.reason, "terminated");
  // What it said is what it would have said alone: the alphabet, over and over.
  for (size_t i = 0; i < result.console.size(); ++i) {
    ASSERT_EQ(result.console[i], static_cast<char>('a' + i % 26)) << i;
  }
}

// ---- the jail of a running hull-vmm, seen from outside ------------------------------------------

class JailFromOutside : public HostileGuest {
 protected:
  void SetUp() override {
    HostileGuest::SetUp();
    if (IsSkipped()) return;
    if (geteuid() != 0) GTEST_SKIP() << "needs root: without it the jail is reduced";
    start("wait");
    waitReady();
  }
  void TearDown() override {
    if (!vmm_) return;
    vmm_->kill(SIGTERM);
    EXPECT_EQ(finish().reason, "terminated");
  }
  std::string proc(const std::string& what) const {
    return "/proc/" + std::to_string(vmm_->pid()) + "/" + what;
  }
  // The fields of a status file, by name, without their white space in front.
  static std::map<std::string, std::string> fields(const std::string& path) {
    std::map<std::string, std::string> all;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      const size_t colon = line.find(':');
      if (colon == std::string::npos) continue;
      const size_t start = line.find_first_not_of(" \t", colon + 1);
      all[line.substr(0, colon)] = start == std::string::npos ? "" : line.substr(start);
    }
    return all;
  }
};

TEST_F(JailFromOutside, HasAnIdentityOfItsOwnAndNoCapabilities) {
  auto status = fields(proc("status"));
  const std::string id = std::to_string(kJailUid);
  EXPECT_EQ(status["Uid"], id + "\t" + id + "\t" + id + "\t" + id);
  EXPECT_EQ(status["Gid"], id + "\t" + id + "\t" + id + "\t" + id);
  EXPECT_EQ(status["Groups"], "");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(status[set], "0000000000000000") << set;
  }
  EXPECT_EQ(status["NoNewPrivs"], "1");
}

TEST_F(JailFromOutside, EveryThreadIsFiltered) {
  std::set<std::string> names;
  for (const auto& thread : std::filesystem::directory_iterator(proc("task"))) {
    auto status = fields(thread.path().string() + "/status");
    EXPECT_EQ(status["Seccomp"], "2") << status["Name"];
    names.insert(status["Name"]);
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"hull-vmm", "vcpu0"}));
}

TEST_F(JailFromOutside, HasNamespacesOfItsOwn) {
  for (const char* kind : {"mnt", "net", "ipc", "uts"}) {
    EXPECT_NE(std::filesystem::read_symlink(proc(std::string("ns/") + kind)),
              std::filesystem::read_symlink(std::string("/proc/self/ns/") + kind))
        << kind;
  }
}

TEST_F(JailFromOutside, RootIsEmptyAndReadOnly) {
  EXPECT_TRUE(std::filesystem::is_empty(proc("root/")));
  EXPECT_EQ(mkdir(proc("root/x").c_str(), 0700), -1);
  EXPECT_EQ(errno, EROFS);
  std::ifstream mounts(proc("mounts"));
  std::string first, second;
  std::getline(mounts, first);
  EXPECT_THAT(first, HasSubstr(" / tmpfs ro,nosuid,nodev,noexec"));
  EXPECT_FALSE(std::getline(mounts, second)) << second;
}

TEST_F(JailFromOutside, HoldsOnlyWhatWasHandedOver) {
  std::set<int> handed{0, 1, 2};
  for (const int fd : descriptorsOf(config_)) handed.insert(fd);
  // Its own: KVM, events, the loop. None leads to a file or another process. A control client that
  // has just left may still be there for a moment.
  const auto strangers = [&] {
    std::set<std::string> targets;
    for (const auto& entry : std::filesystem::directory_iterator(proc("fd"))) {
      if (handed.contains(std::stoi(entry.path().filename().string()))) continue;
      std::error_code gone;  // that client's, when it has been closed meanwhile
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (gone || target.starts_with("anon_inode:") || target == "/dev/kvm") continue;
      targets.insert(target);
    }
    return targets;
  };
  for (int i = 0; i < 500 && !strangers().empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_THAT(strangers(), testing::IsEmpty());
  EXPECT_EQ(std::filesystem::read_symlink(proc("fd/0")), "/dev/null");
}

TEST_F(JailFromOutside, EnvironmentIsEmpty) {
  std::ifstream file(proc("environ"));
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str().find_first_not_of('\0'), std::string::npos) << text.str();
}

TEST_F(JailFromOutside, LimitsAreSet) {
  std::ifstream limits(proc("limits"));
  std::stringstream text;
  text << limits.rdbuf();
  EXPECT_THAT(text.str(), testing::ContainsRegex("Max core file size +0 +0"));
  EXPECT_THAT(text.str(), testing::ContainsRegex("Max open files +2048 +2048"));
}

TEST_F(JailFromOutside, MayNotBeDumped) {
  struct stat info {};
  ASSERT_EQ(stat(proc("mem").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0u);  // proc(5): of root, not of its own user, when not dumpable
}

}  // namespace
}  // namespace hull::vmm
