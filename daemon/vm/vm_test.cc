// Vm against a stand-in VMM (testing/fake_vmm.cc): starting, failing to start, requests, hostile
// guests, the ends of a VM, and a second engine process that takes over.
#include "daemon/vm/vm.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"
#include "base/subprocess.h"
#include "daemon/vm/vmm_process.h"

namespace hull::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class VmTest : public testing::Test {
 protected:
  VmTest() {
    resources_.vmm_program = HULL_FAKE_VMM;
    resources_.kernel = root_.path() + "/kernel";
    resources_.initramfs = root_.path() + "/initramfs";
    resources_.template_disk = root_.path() + "/templates/writable";
    mode("serve");
    write(resources_.initramfs, "initramfs");
    write(root_.path() + "/metadata", std::string(8192, 'm'));
    write(root_.path() + "/data", std::string(8192, 'd'));
    folder_ = root_.path() + "/vm";
    makeDirectories(folder_);
  }

  static void write(const std::string& path, std::string_view text) {
    writeFull(openFile(path, O_WRONLY | O_CREAT | O_TRUNC).get(), text);
  }
  void mode(std::string_view how) { write(resources_.kernel, how); }

  VmSpec spec() const {
    VmSpec made;
    made.directory = folder_;
    made.writable_bytes = 64 << 20;
    made.root.disk_bytes = 24576;
    made.root.segments = {{root_.path() + "/metadata", 0, 0, 8192},
                          {root_.path() + "/data", 0, 8192, 4096},
                          {root_.path() + "/data", 4096, 16384, 4096}};
    return made;
  }
  std::unique_ptr<Vm> start() { return Vm::start(resources_, spec()); }

  // A VM with a share, whose hull-share is this script.
  std::string failureOfShares(const std::string& script) {
    resources_.virtiofsd_program = "/usr/libexec/virtiofsd";
    resources_.share_program = root_.path() + "/hull-share";
    write(resources_.share_program, "#!/bin/sh\n" + script + "\n");
    chmod(resources_.share_program.c_str(), 0755);
    VmSpec shared = spec();
    shared.shares = {{"/srv"}};
    try {
      Vm::start(resources_, std::move(shared));
    } catch (const Error& error) {
      return error.what();
    }
    return "started";
  }

  // A VM with a network card whose passt is this script.
  VmSpec withPasst(const std::string& script) {
    const std::string program = root_.path() + "/passt";
    write(program, "#!/bin/sh\n" + script + "\n");
    chmod(program.c_str(), 0755);
    VmSpec made = spec();
    made.networks.resize(1);
    made.networks[0].mac = {2, 0, 0, 0, 0, 1};
    made.networks[0].passt = {program, "--word"};
    return made;
  }
  std::string failureOfPasst(const std::string& script) {
    try {
      Vm::start(resources_, withPasst(script));
    } catch (const Error& error) {
      return error.what();
    }
    return "started";
  }

  std::string startFailure() {
    try {
      start();
    } catch (const Error& error) {
      return error.what();
    }
    return "started";
  }

  static guest::StartProcess process(std::vector<std::string> arguments) {
    guest::StartProcess message;
    message.process = guest::kMainProcess;
    message.arguments = std::move(arguments);
    return message;
  }
  static guest::OpenStream stream(guest::OpenStream::Kind kind, const std::string& path = {}) {
    guest::OpenStream message;
    message.process = guest::kMainProcess;
    message.kind = kind;
    message.path = path;
    return message;
  }

  template <typename Work>
  static ErrorKind kindOf(Work&& work) {
    try {
      work();
    } catch (const Error& error) {
      return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return ErrorKind::kInternal;
  }

  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  // The end of a VM as its onExit tells it.
  static VmExit exitOf(Vm& vm) {
    std::promise<VmExit> promise;
    vm.onExit([&](const VmExit& exit) { promise.set_value(exit); });
    auto future = promise.get_future();
    if (future.wait_for(seconds(60)) != std::future_status::ready) {
      ADD_FAILURE() << "the VM did not end";
      return {};
    }
    return future.get();
  }

  TemporaryDirectory root_{"hull-vm-test"};
  VmResources resources_;
  std::string folder_;
};

TEST_F(VmTest, StartsAnswersAndPowersOff) {
  const auto vm = start();
  EXPECT_TRUE(vm->running());
  EXPECT_GT(vm->vmmPid(), 0);
  EXPECT_EQ(Vm::lastExit(folder_), std::nullopt);
  const auto state = vm->requestFor<guest::StateReply>("", guest::ListState{});
  EXPECT_EQ(state.containers.size(), 1u);
  const VmExit exit = vm->stop(seconds(30));
  EXPECT_EQ(exit.reason, "poweroff");
  EXPECT_FALSE(vm->running());
  EXPECT_EQ(exitOf(*vm).reason, "poweroff");
  EXPECT_EQ(Vm::lastExit(folder_)->reason, "poweroff");
  EXPECT_EQ(kindOf([&] { vm->request("", guest::ListState{}); }), ErrorKind::kUnavailable);
}

TEST_F(VmTest, GuestThatRefusesAtFirstIsTriedAgain) {
  mode("slow");
  EXPECT_TRUE(start()->running());
}

TEST_F(VmTest, PanicAtBootTellsTheConsoleAndLeavesNothing) {
  mode("panic");
  const std::string message = startFailure();
  EXPECT_THAT(message, HasSubstr("start virtual machine"));
  EXPECT_THAT(message, HasSubstr("panic"));
  EXPECT_THAT(message, HasSubstr("Kernel panic - not syncing: no root"));
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(VmTest, UnusableKvmTellsTheReasonAndTheNextStep) {
  mode("no-kvm");
  const std::string message = startFailure();
  EXPECT_THAT(message, HasSubstr("open /dev/kvm"));
  EXPECT_THAT(message, HasSubstr("hull doctor"));
  EXPECT_THAT(message, HasSubstr("hull-vmm: cannot go on"));
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(VmTest, GuestOfAnotherProtocolIsRefused) {
  mode("old-protocol");
  EXPECT_THAT(startFailure(), HasSubstr("protocol 99"));
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(VmTest, SilentGuestIsGivenUpAndItsProcessEnded) {
  mode("silent");
  resources_.boot_timeout = milliseconds(300);
  EXPECT_EQ(kindOf([&] { start(); }), ErrorKind::kTimeout);
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(VmTest, MissingFilesAreNamedWithTheNextStep) {
  std::filesystem::remove(resources_.kernel);
  EXPECT_THAT(startFailure(), HasSubstr("guest kernel"));
  EXPECT_THAT(startFailure(), HasSubstr("scripts/kernel"));
  mode("serve");
  resources_.vmm_program = root_.path() + "/no-such-vmm";
  EXPECT_THAT(startFailure(), HasSubstr("no-such-vmm"));
  EXPECT_EQ(files(), std::set<std::string>{});
}

TEST_F(VmTest, WritableDiskIsSparseFormattedAndKeptOverRestarts) {
  start()->stop(seconds(30));
  const std::string disk = folder_ + "/writable.ext4";
  EXPECT_EQ(std::filesystem::file_size(disk), uint64_t{64} << 20);
  struct stat info;
  ASSERT_EQ(::stat(disk.c_str(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, 4 << 20);
  const auto check = runCommand({"/usr/sbin/e2fsck", "-fn", disk});
  EXPECT_EQ(check.status, 0) << check.output;
  const auto inode = info.st_ino;
  start()->stop(seconds(30));
  ASSERT_EQ(::stat(disk.c_str(), &info), 0);
  EXPECT_EQ(info.st_ino, inode);
  // A start that fails does not take the disk of the earlier runs with it.
  mode("panic");
  startFailure();
  EXPECT_EQ(files(), std::set<std::string>{"writable.ext4"});
}

TEST_F(VmTest, ProcessExitArrivesAndItsCallbackMayUseTheVm) {
  const auto vm = start();
  std::promise<int> code;
  vm->onProcessExit([&](const std::string& container, const guest::ProcessExited& exited) {
    EXPECT_EQ(container, "c");
    vm->request("c", guest::ForgetProcess{exited.process});
    vm->stop(seconds(30));
    code.set_value(exited.exit_code);
  });
  const auto started = vm->requestFor<guest::ProcessStarted>("c", process({"print", "", "", "42"}));
  EXPECT_EQ(started.pid, 7u);
  auto future = code.get_future();
  ASSERT_EQ(future.wait_for(seconds(60)), std::future_status::ready);
  EXPECT_EQ(future.get(), 42);
}

TEST_F(VmTest, FailureRepliesBecomeErrorsOfTheirKind) {
  const auto vm = start();
  try {
    vm->request("c", process({"missing"}));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    // The guest's control characters do not reach the terminal.
    EXPECT_STREQ(error.what(), "exec: \"missing\": executable file not found in $PATH\\x1b");
  }
}

TEST_F(VmTest, UnansweredRequestTimesOutAndOthersGoOn) {
  const auto vm = start();
  EXPECT_EQ(kindOf([&] { vm->request("c", process({"hang"}), milliseconds(50)); }),
            ErrorKind::kTimeout);
  EXPECT_NO_THROW(vm->request("c", guest::ListState{}));
}

TEST_F(VmTest, WrongKindOfReplyIsRefused) {
  const auto vm = start();
  EXPECT_EQ(kindOf([&] { vm->requestFor<guest::ProcessStarted>("c", process({"wrong"})); }),
            ErrorKind::kCorrupt);
}

TEST_F(VmTest, MalformedFrameEndsTheVmWithAReason) {
  const auto vm = start();
  EXPECT_EQ(kindOf([&] { vm->request("c", process({"garbage"})); }), ErrorKind::kUnavailable);
  const VmExit exit = exitOf(*vm);
  EXPECT_EQ(exit.reason, "error");
  EXPECT_THAT(exit.detail, HasSubstr("no message"));
}

TEST_F(VmTest, FloodOfEventsEndsTheVm) {
  const auto vm = start();
  EXPECT_EQ(kindOf([&] { vm->request("c", process({"flood"})); }), ErrorKind::kUnavailable);
  EXPECT_THAT(exitOf(*vm).detail, HasSubstr("too many events"));
}

TEST_F(VmTest, VmmThatDiesFailsWhatIsPendingAndIsReportedOnce) {
  const auto vm = start();
  std::atomic<int> calls = 0;
  std::promise<VmExit> promise;
  vm->onExit([&](const VmExit& exit) {
    if (++calls == 1) promise.set_value(exit);
  });
  EXPECT_EQ(kindOf([&] { vm->request("c", process({"die"})); }), ErrorKind::kUnavailable);
  auto future = promise.get_future();
  ASSERT_EQ(future.wait_for(seconds(60)), std::future_status::ready);
  const VmExit exit = future.get();
  EXPECT_EQ(exit.reason, "killed");
  EXPECT_THAT(exit.detail, HasSubstr("status 5"));
  vm->stop(seconds(1));
  EXPECT_EQ(calls, 1);
}

TEST_F(VmTest, ClosedControlConnectionFailsRequests) {
  const auto vm = start();
  EXPECT_EQ(kindOf([&] { vm->request("c", process({"close"})); }), ErrorKind::kUnavailable);
  EXPECT_EQ(kindOf([&] { vm->request("c", guest::ListState{}); }), ErrorKind::kUnavailable);
}

TEST_F(VmTest, StubbornGuestIsKilled) {
  mode("stubborn");
  const auto vm = start();
  EXPECT_EQ(vm->stop(milliseconds(20)).reason, "killed");
}

TEST_F(VmTest, StopWithoutGraceTerminatesAtOnce) {
  const auto vm = start();
  EXPECT_EQ(vm->stop(milliseconds(0)).reason, "killed");
}

TEST_F(VmTest, PauseAndResumeGoThroughTheVmm) {
  const auto vm = start();
  vm->pause();
  vm->resume();
  vm->pause();
  EXPECT_EQ(vm->stop(seconds(30)).reason, "poweroff");  // stopping a paused one resumes it
}

TEST_F(VmTest, DiskLimitsReachTheVmmAtItsStartAndLater) {
  DiskLimits limits;
  limits.read.bytes.per_second = 1000;
  limits.write.operations.per_second = 20;
  VmSpec limited = spec();
  limited.disk_limits = limits;
  const auto vm = Vm::start(resources_, std::move(limited));
  const auto said = [&] { return readFile(folder_ + "/console.log"); };
  const vmm::LimitsChange root{"root", limits.read, {}};
  const vmm::LimitsChange writable{"writable", limits.read, limits.write};
  EXPECT_THAT(said(), HasSubstr(toJson(root) + "\n" + toJson(writable) + "\n"));
  DiskLimits other;
  other.write.bytes.per_second = 3000;
  vm->setDiskLimits(other);
  EXPECT_THAT(said(), HasSubstr(toJson(vmm::LimitsChange{"writable", other.read, other.write})));
  vm->setDiskLimits({});
  EXPECT_THAT(said(), testing::EndsWith(toJson(vmm::LimitsChange{"writable", {}, {}}) + "\n"));
}

TEST_F(VmTest, RefusedPauseIsAnError) {
  mode("slow");
  const auto vm = start();
  EXPECT_THROW(vm->pause(), Error);
}

TEST_F(VmTest, ChunkedStreamsCarryDataAndVerdicts) {
  using Kind = guest::OpenStream::Kind;
  const auto vm = start();
  const auto readAs = [&](const std::string& path) {
    ChunkSource source(vm->openStream("c", stream(Kind::kReadArchive, path)));
    return readAll(source, 1000, "stream");
  };
  EXPECT_EQ(readAs("/"), "layer 0");
  EXPECT_EQ(kindOf([&] { readAs("fail"); }), ErrorKind::kInternal);
  EXPECT_EQ(kindOf([&] { readAs("cut"); }), ErrorKind::kUnavailable);
  EXPECT_EQ(kindOf([&] { readAs("huge"); }), ErrorKind::kCorrupt);
  EXPECT_EQ(kindOf([&] { readAs("missing"); }), ErrorKind::kNotFound);

  const std::string much(3 * guest::kMaxChunkBytes + 5, 'x');
  ChunkSink good(vm->openStream("c", stream(Kind::kWriteArchive, "/")));
  good.write(much);
  EXPECT_NO_THROW(good.finish());
  ChunkSink bad(vm->openStream("c", stream(Kind::kWriteArchive, "fail")));
  bad.write(much);
  try {
    bad.finish();
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), ("took " + std::to_string(much.size()) + " and failed").c_str());
  }
}

TEST_F(VmTest, CountsAgainstTheQuotaForAsLongAsItsProcessRuns) {
  resources_.quota = std::make_shared<Quota>(Quota::Limits{.machines = 1});
  const auto first = start();
  EXPECT_EQ(kindOf([&] { start(); }), ErrorKind::kNoSpace);
  first->stop(seconds(30));
  mode("no-kvm");  // and one that fails gives its share back
  EXPECT_EQ(kindOf([&] { start(); }), ErrorKind::kUnavailable);
  mode("serve");
  EXPECT_TRUE(start()->running());
}

TEST_F(VmTest, DestroyedVmLeavesNoProcess) {
  pid_t pid = 0;
  {
    const auto vm = start();
    pid = vm->vmmPid();
  }
  EXPECT_NE(::kill(pid, 0), 0);
}

// The engine process that started a VM ends, without a word to it; another one finds it.
class AdoptTest : public VmTest {
 protected:
  std::unique_ptr<Vm> adopt() { return Vm::adopt(resources_, folder_); }

  // Starts the VM in a child process that then abandons it and exits, as an engine does.
  void startElsewhere() {
    const pid_t child = fork();
    if (child == 0) {
      int status = 1;
      try {
        auto vm = start();
        vm->request("c", process({"print", "", "", "3"}));
        vm->abandon();
        status = 0;
      } catch (const Error&) {
      }
      _exit(status);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
  }
};

TEST_F(AdoptTest, AdoptedVmStillKnowsWhatHappened) {
  startElsewhere();
  const auto vm = adopt();
  ASSERT_NE(vm, nullptr);
  const auto state = vm->requestFor<guest::StateReply>("", guest::ListState{});
  ASSERT_EQ(state.containers.at(0).processes.size(), 1u);
  EXPECT_EQ(state.containers[0].processes[0].exit_code, 3);
  EXPECT_EQ(vm->stop(seconds(30)).reason, "poweroff");
  EXPECT_EQ(adopt(), nullptr);
  EXPECT_EQ(Vm::lastExit(folder_)->reason, "poweroff");
}

TEST_F(AdoptTest, AnAdoptedVmCountsAgainstTheQuotaAsItDidBefore) {
  resources_.quota = std::make_shared<Quota>(Quota::Limits{.memory_mib = spec().memory_mib});
  startElsewhere();
  const auto vm = adopt();
  ASSERT_NE(vm, nullptr);
  EXPECT_THROW(resources_.quota->take({1, 1}), Error);
  vm->stop(seconds(30));
  EXPECT_NO_THROW(resources_.quota->take({spec().memory_mib, 1}));
}

TEST_F(AdoptTest, PausedVmIsAdoptedPaused) {
  startElsewhere();
  {
    const auto first = adopt();
    ASSERT_NE(first, nullptr);
    first->pause();
    first->abandon();
  }
  const auto second = adopt();
  ASSERT_NE(second, nullptr);
  EXPECT_NO_THROW(second->resume());
  EXPECT_EQ(second->stop(seconds(30)).reason, "poweroff");
}

TEST_F(AdoptTest, ReusedProcessIdIsNotMistaken) {
  write(folder_ + "/vmm.pid", std::to_string(getpid()) + " 1\n");
  EXPECT_EQ(adopt(), nullptr);
  EXPECT_EQ(Vm::lastExit(folder_)->reason, "killed");
}

TEST_F(AdoptTest, VmThatWasNeverRecordedIsStopped) {
  startElsewhere();
  std::filesystem::remove(folder_ + "/vmm.pid");
  EXPECT_EQ(adopt(), nullptr);
  EXPECT_THAT(readFile(folder_ + "/status.json"), HasSubstr("terminated"));
}

TEST_F(AdoptTest, HostileStatusFilesAreNotBelieved) {
  write(folder_ + "/vmm.pid", "1 1\n");
  for (const char* text : {"", "{", "[]", "{\"reason\":7}", "{\"reason\":[[[[[[[[[[]]]]]]]]]]}"}) {
    write(folder_ + "/status.json", text);
    EXPECT_EQ(Vm::lastExit(folder_)->reason, "killed") << text;
  }
  write(folder_ + "/status.json", std::string(1 << 20, '['));
  EXPECT_EQ(Vm::lastExit(folder_)->reason, "killed");
  write(folder_ + "/status.json", R"({"reason":"panic","detail":"a\u001b[2Jb"})");
  EXPECT_EQ(Vm::lastExit(folder_)->detail, "a\\x1b[2Jb");
}

TEST_F(VmTest, WhatCannotBeSharedFailsTheStartAndNothingIsLeft) {
  EXPECT_THAT(failureOfShares("echo 'no such folder' >&4; exit 1"), HasSubstr("no such folder"));
  std::set<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    left.insert(entry.path().filename().string());
  }
  left.erase("shares");
  EXPECT_TRUE(left.empty()) << *left.begin();
}

TEST_F(VmTest, WithoutVirtiofsdTheErrorNamesItsPackage) {
  VmSpec shared = spec();
  shared.shares = {{"/srv"}};
  try {
    Vm::start(resources_, std::move(shared));
    ADD_FAILURE() << "started";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("apt-get install virtiofsd"));
  }
}

// Takes the probe and answers it as passt would; then it runs until the wire is closed.
constexpr const char* kServingPasst = R"(
echo "$@" >"${0%/*}/words"
dd bs=46 count=1 of=/dev/null <&3 2>/dev/null
printf '\000\000\000\052AAAAAABBBBBB\010\006\000\001\010\000\006\004\000\002CCCCCCssssDDDDDDtttt' >&3
echo says this >&2
exec cat <&3 >/dev/null)";

TEST_F(VmTest, PasstServesBeforeTheVmStartsAndEndsWithIt) {
  const auto vm = Vm::start(resources_, withPasst(kServingPasst));
  EXPECT_EQ(readFile(root_.path() + "/words"), "--word --fd 3\n");
  auto passt = VmmProcess::find(folder_, kPasstPidFile);
  ASSERT_TRUE(passt);
  vm->stop(std::chrono::milliseconds(0));
  EXPECT_TRUE(passt->waitEnded(10000));
}

TEST_F(VmTest, PasstThatFailsFailsTheStartWithItsWords) {
  EXPECT_THAT(failureOfPasst("echo 'Failed to bind any port' >&2; exit 1"),
              HasSubstr("passt does not serve: Failed to bind any port"));
  EXPECT_FALSE(fileExists(folder_ + "/" + kPasstPidFile));
  EXPECT_THAT(failureOfPasst("printf '\\377\\377\\377\\377' >&3; exec sleep 1000"),
              HasSubstr("does not serve"));  // no frame is that long
  VmSpec missing = spec();
  missing.networks.resize(1);
  missing.networks[0].passt = {"/nowhere/passt"};
  EXPECT_THROW(Vm::start(resources_, std::move(missing)), Error);
}

TEST_F(VmTest, AVmOutlivesItsPasst) {
  const auto vm = Vm::start(resources_, withPasst(kServingPasst));
  const auto passt = VmmProcess::find(folder_, kPasstPidFile);
  ASSERT_TRUE(passt);
  passt->kill(SIGKILL);
  ASSERT_TRUE(passt->waitEnded(10000));
  vm->requestFor<guest::StateReply>("", guest::ListState{});
  EXPECT_TRUE(vm->running());
  vm->stop(std::chrono::milliseconds(0));
}

TEST_F(VmTest, AnAdoptedVmStillEndsItsPasst) {
  {
    const auto vm = Vm::start(resources_, withPasst(kServingPasst));
    vm->abandon();
  }
  const auto passt = VmmProcess::find(folder_, kPasstPidFile);
  ASSERT_TRUE(passt);
  const auto vm = Vm::adopt(resources_, folder_);
  ASSERT_TRUE(vm);
  EXPECT_FALSE(passt->ended());
  vm->stop(std::chrono::milliseconds(0));
  EXPECT_TRUE(passt->waitEnded(10000));
}

}  // namespace
}  // namespace hull::engine
