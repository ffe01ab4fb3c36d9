// A second container in the machine of another one, on parts of a disk.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/subprocess.h"
#include "guest-init/testing/machine.h"

namespace hull::guest {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMib = 1 << 20;
constexpr uint64_t kRootAt = 4 * kMib, kRootBytes = 16 * kMib;
constexpr uint64_t kUpperAt = 24 * kMib, kUpperBytes = 16 * kMib;
constexpr uint64_t kDiskBytes = kUpperAt + kUpperBytes;

class SeatTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = TestMachine::whyNot(); !reason.empty()) GTEST_SKIP() << reason;
    if (wantsVmHost())
      GTEST_SKIP() << "the disk that grows is the engine's: tests/e2e/test_join.py";
    machine = std::make_unique<TestMachine>();
    machine->create();
    makeDisk();
  }
  // The image's file system and an empty one, as windows of one larger disk.
  void makeDisk() {
    const Fd file = openFile(disk, O_RDWR | O_CREAT, 0600);
    ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(kDiskBytes)), 0);
    const std::string root = readFile(machine->disks().root, 64 * kMib);
    pwriteFull(file.get(), asBytes(root), kRootAt);
    const std::string upper = folder.path() + "/upper";
    checkCommand({"mkfs.ext4", "-q", "-F", upper, "16M"});
    pwriteFull(file.get(), asBytes(readFile(upper, 64 * kMib)), kUpperAt);
  }
  PrepareSeat seat() const {
    return {"c", disk, {{kRootAt, kRootBytes, true}, {kUpperAt, kUpperBytes, false}}};
  }
  CreateContainer optionsOn(const SeatPrepared& prepared) const {
    CreateContainer options = machine->containerOptions();
    options.root_disk = prepared.devices.at(0);
    options.writable_disk = prepared.devices.at(1);
    options.hosts = "never written\n";
    return options;
  }
  void join() {
    machine->use("beside");
    machine->ask(optionsOn(machine->ask<SeatPrepared>(seat())));
  }
  Failure failure(const Message& message) {
    const Message reply = machine->request(message);
    const auto* failed = std::get_if<Failure>(&reply);
    EXPECT_TRUE(failed) << "message " << reply.index();
    return failed ? *failed : Failure{};
  }
  // Loop devices of ours that there are.
  size_t devices() const {
    const std::string list = checkCommand({"losetup", "-a"});
    size_t count = 0;
    for (size_t at = list.find(disk); at != std::string::npos; at = list.find(disk, at + 1))
      ++count;
    return count;
  }

  TemporaryDirectory folder{"hull-seat-test"};
  std::string disk = folder.path() + "/disk";
  std::unique_ptr<TestMachine> machine;
};

TEST_F(SeatTest, BothRunOnFileSystemsOfTheirOwn) {
  join();
  EXPECT_EQ(machine->run("cat /full/file; echo theirs > /here").out, "from the image\n");
  machine->use("c");
  EXPECT_EQ(machine->run("test -e /here || echo none").out, "none\n");
}

TEST_F(SeatTest, NameFilesAreTheHostsAndProcessesAreNot) {
  machine->ask<ProcessStarted>(machine->shell("sleep 1000"));
  join();
  const std::string names = "cat /etc/hosts /etc/hostname /etc/resolv.conf; ";
  EXPECT_EQ(machine->run(names + "echo $$; ps | grep -c '[s]leep'").out,
            "127.0.0.1 localhost\nbox\nnameserver 192.0.2.1\n1\n0\n");
  machine->ask(WriteNameFiles{"10.0.0.1 new\n", ""}, "c");
  EXPECT_EQ(machine->run("cat /etc/hosts").out, "10.0.0.1 new\n");
}

TEST_F(SeatTest, RemovingItTakesItsDevicesAndLeavesTheHost) {
  join();
  machine->run("echo kept > /file");
  EXPECT_EQ(devices(), 2u);
  machine->ask(RemoveContainer{});
  EXPECT_EQ(devices(), 0u);
  machine->use("c");
  EXPECT_EQ(machine->run("echo on").out, "on\n");
  join();  // once more: what it wrote is there
  EXPECT_EQ(machine->run("cat /file").out, "kept\n");
}

TEST_F(SeatTest, TheImageCannotBeWritten) {
  machine->use("beside");
  const auto prepared = machine->ask<SeatPrepared>(seat());
  const auto written = [](const std::string& device) {
    return pwrite(openFile(device, O_RDWR).get(), "x", 1, 0);
  };
  EXPECT_EQ(written(prepared.devices.at(0)), -1);
  EXPECT_EQ(written(prepared.devices.at(1)), 1);
  machine->ask(RemoveContainer{});  // nothing but a seat yet
  EXPECT_EQ(devices(), 0u);
}

TEST_F(SeatTest, WaitsUntilTheDiskHasGrown) {
  ASSERT_EQ(truncate(disk.c_str(), static_cast<off_t>(kUpperAt)), 0);
  machine->use("beside");
  machine->send(seat(), "beside");
  machine->ask<StateReply>(ListState{}, "");  // the server goes on meanwhile
  ASSERT_EQ(truncate(disk.c_str(), static_cast<off_t>(kDiskBytes)), 0);
  EXPECT_EQ(machine->receiveReply<SeatPrepared>().devices.size(), 2u);
}

TEST_F(SeatTest, BadSeatsAreRefused) {
  machine->use("beside");
  EXPECT_EQ(failure(PrepareSeat{"nobody", disk, seat().parts}).code, FailureCode::kNotFound);
  EXPECT_EQ(failure(PrepareSeat{"c", disk, {}}).code, FailureCode::kInvalid);
  EXPECT_EQ(failure(PrepareSeat{"c", disk, std::vector<DiskPart>(kMaxSeatParts + 1)}).code,
            FailureCode::kInvalid);
  EXPECT_EQ(failure(PrepareSeat{"c", disk, {{100, 512, true}}}).code, FailureCode::kInvalid);
  EXPECT_EQ(failure(PrepareSeat{"c", disk, {{~uint64_t{511}, 512, true}}}).code,
            FailureCode::kInvalid);
  failure(PrepareSeat{"c", folder.path() + "/nothing", seat().parts});
  EXPECT_EQ(devices(), 0u);
  machine->use("c");
  EXPECT_EQ(failure(PrepareSeat{"c", disk, seat().parts}).code, FailureCode::kConflict);
}

}  // namespace
}  // namespace hull::guest
