// What the machine decides on the host, without starting one.
#include "machine/machine.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "machine/config.h"
#include "machine/console_log.h"
#include "machine/detect.h"
#include "machine/lock.h"
#include "machine/payload.h"
#include "machine/ports.h"

namespace hull::machine {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

MachinePaths pathsIn(const TemporaryDirectory& directory) {
  return {directory.path() + "/state", directory.path() + "/cache"};
}

TEST(Detect, IsConsistentWithWhatTheHostShows) {
  const Detection detection = detect();
  const bool device = ::access("/dev/kvm", F_OK) == 0;
  const bool flags = !cpuVirtualizationFlag(readFile("/proc/cpuinfo")).empty();
  EXPECT_FALSE(detection.explanation.empty());
  EXPECT_EQ(detection.next_step.empty(), detection.usable());
  switch (detection.result) {
    case HostVirtualization::kUsable:
      EXPECT_TRUE(device && flags);
      EXPECT_EQ(runProbeGuest("/dev/kvm"), "");
      break;
    case HostVirtualization::kProbeFailed:
      EXPECT_TRUE(device && flags);
      EXPECT_NE(runProbeGuest("/dev/kvm"), "");
      break;
    case HostVirtualization::kEmulatedOnly:
      EXPECT_TRUE(device && !flags);
      break;
    case HostVirtualization::kNoCpuFlags:
      EXPECT_TRUE(!device && !flags);
      break;
    case HostVirtualization::kNoDevice:
    case HostVirtualization::kNoPermission:
      EXPECT_TRUE(flags);
      break;
  }
}

TEST(Detect, ReadsTheFlagsLineOnly) {
  EXPECT_EQ(cpuVirtualizationFlag("model name\t: svm\nflags\t\t: fpu svm sse\n"), "svm");
  EXPECT_EQ(cpuVirtualizationFlag("flags\t\t: fpu vmx\nvmx flags\t: vnmi\n"), "vmx");
  EXPECT_EQ(cpuVirtualizationFlag("model name\t: vmx svm\nflags\t\t: fpu svm_lock avmx\n"), "");
  EXPECT_EQ(cpuVirtualizationFlag(""), "");
}

TEST(Detect, AProbeWithoutADeviceSaysWhy) {
  EXPECT_EQ(runProbeGuest("/does/not/exist"), "open the device");
  EXPECT_EQ(runProbeGuest("/dev/null"), "KVM's version");
}

TEST(Config, SurvivesTheWayThroughItsFile) {
  const TemporaryDirectory directory;
  const MachinePaths paths = pathsIn(directory);
  makeDirectories(paths.state);
  saveConfig(paths, {"/usr/bin/qemu", "/images/a,b", "/programs", 3000});
  const MachineConfig config = loadConfig(paths);
  EXPECT_EQ(config.qemu, "/usr/bin/qemu");
  EXPECT_EQ(config.image_directory, "/images/a,b");
  EXPECT_EQ(config.payload_directory, "/programs");
  EXPECT_EQ(config.memory_mib, 3000U);
}

TEST(Config, HoldsToTheReliableRecipe) {
  const TemporaryDirectory directory;
  const auto arguments = qemuArguments(pathsIn(directory), {"qemu", "/a,b", "", 2048}, false);
  const auto after = [&](const std::string& option) {
    const auto found = std::find(arguments.begin(), arguments.end(), option);
    return found == arguments.end() ? "" : *(found + 1);
  };
  EXPECT_EQ(after("-smp"), "1");
  EXPECT_EQ(after("-M"), "q35");
  EXPECT_THAT(after("-cpu"), HasSubstr("pku=off,la57=off"));
  EXPECT_THAT(after("-append"), HasSubstr("kvm_amd.vls=0 kvm_amd.vgif=0"));
  EXPECT_THAT(arguments, Contains(HasSubstr("file=/a,,b/root.ext4")));
  EXPECT_THAT(arguments, Not(Contains(HasSubstr("vhost-user-fs"))));
}

// virtiofsd works on the machine's memory.
TEST(Config, SharingTheHostNeedsSharedMemory) {
  const TemporaryDirectory directory;
  const auto arguments = qemuArguments(pathsIn(directory), {"qemu", "/i", "", 2048}, true);
  EXPECT_THAT(arguments, Contains("vhost-user-fs-pci,chardev=share,tag=hullhost"));
  EXPECT_THAT(arguments, Contains("memory-backend-memfd,id=memory,share=on,size=2048M"));
  EXPECT_THAT(arguments, Contains("q35,memory-backend=memory"));
  EXPECT_THAT(arguments, Contains("socket,id=share,fd=7"));
}

TEST(Config, MemoryStaysWithinItsBounds) {
  EXPECT_LE(defaultMemoryMib(), 8192U);
  EXPECT_GT(defaultMemoryMib(), 0U);
}

TEST(Lock, IsSeenByOthersAndGoesWithItsOwner) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/lock";
  EXPECT_FALSE(isLocked(path));
  Fd lock = tryLockFile(path);
  ASSERT_TRUE(lock);
  EXPECT_TRUE(isLocked(path));
  EXPECT_FALSE(tryLockFile(path));
  lock.reset();
  EXPECT_FALSE(isLocked(path));
  EXPECT_TRUE(tryLockFile(path));
}

TEST(ConsoleLog, IsBounded) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/console.log";
  ConsoleLog log(path);
  const std::string line(999, 'x');
  for (int i = 0; i < 4000; ++i) log.write(line + "\n");
  EXPECT_LE(readFile(path).size(), kConsoleLogBytes);
  EXPECT_LE(readFile(path + ".1").size(), kConsoleLogBytes);
}

TEST(ConsoleLog, TailHoldsTheLastLinesWithoutControlCharacters) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/console.log";
  ConsoleLog log(path);
  log.write("one\r\ntwo\r\n\x1b[31mthree\r\n");
  EXPECT_EQ(tailOf(path, 2), "two\n[31mthree");
  EXPECT_EQ(tailOf(path, 9), "one\ntwo\n[31mthree");
  EXPECT_EQ(tailOf(directory.path() + "/none", 2), "");
}

class PayloadTest : public ::testing::Test {
 protected:
  PayloadTest() : paths_(pathsIn(directory_)) {
    makeDirectories(paths_.state);
    makeDirectories(source_.directory = directory_.path() + "/bin");
    source_.agent = directory_.path() + "/bin/agent";
    source_.agent_arguments = {"agent"};
    put("agent", "the agent");
  }
  void put(const std::string& name, const std::string& text) {
    writeFileAtomic(source_.directory + "/" + name, text, 0755);
  }
  std::string inside(const std::string& command) {
    return checkCommand({"/usr/sbin/debugfs", "-R", command, paths_.payload()});
  }

  TemporaryDirectory directory_;
  MachinePaths paths_;
  PayloadSource source_;
};

TEST_F(PayloadTest, NamesWhatAnEngineLacks) {
  EXPECT_EQ(payloadProblem(source_), "") << "a bare machine needs no engine";
  put("hulld", "engine");
  EXPECT_THAT(payloadProblem(source_), HasSubstr("hull-vmm is missing"));
  put("hull-vmm", "vmm");
  put("hull-share", "share");
  put("hull-initramfs", "initramfs");
  EXPECT_THAT(payloadProblem(source_), HasSubstr("scripts/kernel"));
  put("vmlinux", "kernel");
  EXPECT_EQ(payloadProblem(source_), "");
}

TEST_F(PayloadTest, IsMadeOnceAndAgainWhenAProgramChanges) {
  put("hulld", "first engine");
  EXPECT_TRUE(ensurePayload(paths_, source_));
  EXPECT_EQ(inside("cat /hulld"), "first engine");
  EXPECT_EQ(inside("cat /machine-agent"), "the agent");
  EXPECT_EQ(inside("cat /agent-arguments"), "agent\n");
  EXPECT_EQ(inside("cat /engine-socket"), paths_.engineSocket() + "\n");
  EXPECT_THAT(inside("cat /machine-init"), HasSubstr("PID 1"));
  EXPECT_FALSE(ensurePayload(paths_, source_));
  put("hulld", "second engine");
  EXPECT_TRUE(ensurePayload(paths_, source_));
  EXPECT_EQ(inside("cat /hulld"), "second engine");
}

TEST_F(PayloadTest, DataDiskIsSparseCleanAndKept) {
  ensureDataDisk(paths_, 8);
  struct stat info {};
  ASSERT_EQ(::stat(paths_.dataDisk().c_str(), &info), 0);
  EXPECT_EQ(info.st_size, int64_t{8} << 30);
  EXPECT_LT(info.st_blocks * 512, int64_t{256} << 20);
  checkCommand({"/usr/sbin/e2fsck", "-fn", paths_.dataDisk()});
  ensureDataDisk(paths_, 16);
  ASSERT_EQ(::stat(paths_.dataDisk().c_str(), &info), 0);
  EXPECT_EQ(info.st_size, int64_t{8} << 30) << "a disk that is there is not touched";
}

TEST(Publish, ReadsARequest) {
  const auto request = parsePublishRequest(
      R"({"publish":{"address":"127.0.0.1","port":8080,"protocol":"tcp","target":"127.0.0.1:9"}})");
  EXPECT_EQ(request.address, "127.0.0.1");
  EXPECT_EQ(request.port, 8080);
  EXPECT_EQ(request.target, "127.0.0.1:9");
  EXPECT_FALSE(request.udp);
  EXPECT_TRUE(parsePublishRequest(R"({"publish":{"port":53,"protocol":"udp","target":"x"}})").udp);
}

TEST(Publish, RefusesOtherThings) {
  for (const char* bad :
       {"", "{", "[]", "{}", R"({"publish":7})", R"({"publish":{"port":"80","target":"x"}})",
        R"({"publish":{"port":65536,"target":"x"}})", R"({"publish":{"port":-1,"target":"x"}})",
        R"({"publish":{"port":80}})",
        R"({"publish":{"port":80,"protocol":"sctp","target":"x"}})"}) {
    EXPECT_THROW(parsePublishRequest(bad), Error) << bad;
  }
}

TEST(Publish, AnyFreePortAndAPortInUse) {
  for (const bool udp : {false, true}) {
    const BoundPort first = bindPort({"127.0.0.1", 0, udp, ""});
    EXPECT_NE(first.port, 0);
    try {
      bindPort({"127.0.0.1", first.port, udp, ""});
      FAIL() << "a port in use was bound";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConflict);
      EXPECT_EQ(std::string(error.what()),
                "bind 127.0.0.1:" + std::to_string(first.port) + ": Address already in use");
    }
    EXPECT_THROW(bindPort({"localhost", 0, udp, ""}), Error);
  }
}

TEST(Machine, WhatIsNotRunningHasNoSocketAndNothingToStop) {
  const TemporaryDirectory directory;
  MachineOptions options;
  options.paths = pathsIn(directory);
  EXPECT_EQ(status(options).phase, MachinePhase::kAbsent);
  EXPECT_EQ(engineSocket(options.paths), "");
  EXPECT_NO_THROW(stop(options.paths, [](const std::string&) {}));
  EXPECT_NO_THROW(remove(options.paths, [](const std::string&) {}));
  try {
    run(options.paths, {{"true"}, {}, {}});
    FAIL() << "ran a command in a machine that is not running";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("hull machine start"));
  }
}

TEST(Machine, AnEngineWithoutAKernelIsRefusedBeforeAnythingStarts) {
  const TemporaryDirectory directory;
  MachineOptions options;
  options.paths = pathsIn(directory);
  options.payload_directory = directory.path();
  for (const char* name : {"hulld", "hull-vmm", "hull-share", "hull-initramfs"}) {
    writeFileAtomic(directory.path() + "/" + name, "x");
  }
  try {
    start(options, [](const std::string&) {});
    FAIL() << "started without a guest kernel";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("vmlinux is missing"));
    EXPECT_THAT(error.what(), HasSubstr("scripts/kernel"));
  }
  EXPECT_FALSE(fileExists(options.paths.dataDisk()));
}

}  // namespace
}  // namespace hull::machine
