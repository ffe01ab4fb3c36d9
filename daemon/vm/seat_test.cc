// A container's place in another one's machine, against a stand-in VMM (testing/fake_vmm.cc).
#include "daemon/vm/seat.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "base/error.h"
#include "base/file.h"
#include "daemon/vm/disk_growth.h"

namespace hull::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMib = uint64_t{1} << 20;

class SeatTest : public testing::Test {
 protected:
  SeatTest() {
    resources_.vmm_program = HULL_FAKE_VMM;
    resources_.kernel = root_.path() + "/kernel";
    resources_.initramfs = root_.path() + "/initramfs";
    resources_.template_disk = root_.path() + "/templates/writable";
    writeFileAtomic(resources_.kernel, "serve");
    writeFileAtomic(resources_.initramfs, "initramfs");
    for (int n = 0; n < 6; ++n) writeFileAtomic(layer(n), std::string(8192, 'd'));
    makeDirectories(machine_folder_);
    VmSpec spec;
    spec.directory = machine_folder_;
    spec.writable_bytes = 64 * kMib;
    spec.root = rootDisk();
    machine_ = Vm::start(resources_, std::move(spec));
  }
  std::string layer(int number) const { return root_.path() + "/layer-" + std::to_string(number); }
  image::RootDisk rootDisk() const {
    image::RootDisk root;
    root.disk_bytes = 6 * 8192;
    for (uint64_t n = 0; n < 6; ++n) {
      root.segments.push_back({layer(static_cast<int>(n)), 0, n * 8192, 8192});
    }
    return root;
  }
  Seat sit(const std::string& name = "beside", const std::string& host = "owner") {
    SeatSpec spec;
    spec.directory = root_.path() + "/" + name;
    makeDirectories(spec.directory);
    spec.container = name;
    spec.host = host;
    spec.root = rootDisk();
    spec.writable_bytes = 64 * kMib;
    return takeSeat(resources_.template_disk, machine_, spec);
  }
  std::string said() const { return readFile(machine_folder_ + "/console.log"); }
  static guest::StartProcess process(std::vector<std::string> arguments) {
    guest::StartProcess start;
    start.process = guest::kMainProcess;
    start.arguments = std::move(arguments);
    return start;
  }
  bool seated(const std::string& name = "beside") const {
    return seatHost(root_.path() + "/" + name).has_value();
  }

  TemporaryDirectory root_{"hull-seat"};
  const std::string machine_folder_ = root_.path() + "/machine";
  VmResources resources_;
  std::shared_ptr<Vm> machine_;
};

TEST_F(SeatTest, ItsDisksAreBehindTheMachinesAndAreTakenBack) {
  Seat seat = sit();
  EXPECT_EQ(seat.devices.size(), 2u);
  const std::string grown = said();
  // Six read-only segments in two commands, then the writable disk.
  EXPECT_THAT(grown, HasSubstr(R"("disk_offset":67108864)"));
  EXPECT_THAT(grown, HasSubstr(R"("size_bytes":135266304)"));
  EXPECT_THAT(grown, HasSubstr(R"("read_only":false)"));
  EXPECT_TRUE(seated());
  EXPECT_THAT(grown, Not(HasSubstr("cut")));
  seat.vm->stop(std::chrono::seconds(1));
  EXPECT_THAT(
      said(),
      HasSubstr(R"({"command":"cut","disk":"writable","length":68157440,"offset":67108864})"));
  EXPECT_FALSE(seated());
  EXPECT_FALSE(seat.vm->running());
  EXPECT_TRUE(machine_->running());
  // Addresses are not used twice.
  const Seat next = sit();
  EXPECT_THAT(said(), HasSubstr(R"("disk_offset":135266304)"));
}

TEST_F(SeatTest, ExitsReachTheContainerTheyAreOf) {
  Seat seat = sit();
  std::promise<std::string> ours, theirs;
  machine_->onProcessExit([&](const std::string& container, const guest::ProcessExited& exit) {
    theirs.set_value(container + " " + std::to_string(exit.exit_code));
  });
  seat.vm->onProcessExit([&](const std::string& container, const guest::ProcessExited& exit) {
    ours.set_value(container + " " + std::to_string(exit.exit_code));
  });
  seat.vm->request("beside", process({"print", "", "", "3"}));
  machine_->request("owner", process({"print", "", "", "4"}));
  EXPECT_EQ(ours.get_future().get(), "beside 3");
  EXPECT_EQ(theirs.get_future().get(), "owner 4");
}

TEST_F(SeatTest, BothHearOfTheMachinesEnd) {
  Seat seat = sit();
  std::promise<VmExit> ours, theirs;
  machine_->onExit([&](const VmExit& exit) { theirs.set_value(exit); });
  seat.vm->onExit([&](const VmExit& exit) { ours.set_value(exit); });
  machine_->stop(std::chrono::seconds(10));
  EXPECT_EQ(ours.get_future().get().reason, "poweroff");
  EXPECT_EQ(theirs.get_future().get().reason, "poweroff");
  EXPECT_FALSE(seat.vm->running());
  seat.vm->stop(std::chrono::seconds(1));
  EXPECT_FALSE(seated());
}

TEST_F(SeatTest, WhatTheGuestRefusesLeavesNothing) {
  EXPECT_THROW(sit("beside", "full"), Error);
  EXPECT_THAT(said(), HasSubstr("\"cut\""));
  EXPECT_FALSE(seated());
  EXPECT_TRUE(machine_->running());
}

TEST_F(SeatTest, MissingLayersAreTakenBack) {
  ASSERT_EQ(unlink(layer(5).c_str()), 0);
  EXPECT_THROW(sit(), Error);
  EXPECT_THAT(said(), HasSubstr("\"cut\""));
}

TEST_F(SeatTest, AnAbandonedSeatIsFoundAgain) {
  Seat seat = sit();
  seat.vm->abandon();
  seat.vm.reset();
  EXPECT_TRUE(seated());
  EXPECT_EQ(seatHost(root_.path() + "/beside"), "owner");
  const auto again = adoptSeat(machine_, root_.path() + "/beside", "beside");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->running());
  again->stop(std::chrono::seconds(1));
  EXPECT_THAT(said(), HasSubstr("\"cut\""));
}

TEST_F(SeatTest, ASeatInTheMachineBeforeIsNone) {
  const Seat other = sit("other");
  makeDirectories(root_.path() + "/beside");
  writeFileAtomic(root_.path() + "/beside/seat", "owner 1 67108864 68157440\n");
  EXPECT_FALSE(adoptSeat(machine_, root_.path() + "/beside", "beside"));
  EXPECT_FALSE(seated());
  EXPECT_THAT(said(), Not(HasSubstr("\"cut\"")));  // the other one's, by now
}

TEST_F(SeatTest, DamagedNotesAreNone) {
  makeDirectories(root_.path() + "/odd");
  for (const char* text : {"", "owner", "owner 1 x y", "owner 1 2"}) {
    writeFileAtomic(root_.path() + "/odd/seat", text);
    EXPECT_FALSE(seated("odd")) << text;
  }
}

TEST(DiskGrowth, PlacesDoNotOverlapAndAreAligned) {
  const auto disk = [](uint64_t bytes) { return AddedDisk{{bytes, {}}, true}; };
  const auto places = placesOf({disk(100 * 512), disk(3 * kMib), disk(512)}, 10 * kMib + 512);
  ASSERT_EQ(places.parts.size(), 3u);
  EXPECT_EQ(places.offset, 11 * kMib);
  EXPECT_EQ(places.parts[0].offset, 11 * kMib);
  EXPECT_EQ(places.parts[1].offset, 12 * kMib);
  EXPECT_EQ(places.parts[2].offset, 15 * kMib);
  EXPECT_EQ(places.length, 5 * kMib);
}

}  // namespace
}  // namespace hull::engine
