// Saving and restoring every device of the grid: it goes on where it stopped; and whatever a
// crafted state says, it is refused or makes a device that a driver can reset.
#include <gtest/gtest.h>

#include <array>

#include "vmm/hostile/device_cases.h"

namespace hull::vmm::virtio::hostile {
namespace {

class HostileState : public ::testing::TestWithParam<const DeviceCase*> {
 protected:
  void SetUp() override {
    subject_ = GetParam()->make();
    if (!subject_->missing().empty()) GTEST_SKIP() << subject_->missing();
    bench_.emplace(*subject_);
    bench_->start();
    ASSERT_TRUE(subject_->serves(*bench_));
    state_ = bench_->save();
  }
  // A second device, as in another process, goes on with `state`.
  bool loads(std::string_view state) {
    next_ = GetParam()->make();
    return bench_->goOnWith(*next_, state);
  }
  // The next attempt begins with a running device on fresh rings again.
  void again() {
    bench_.emplace(*subject_);
    bench_->start();
  }

  std::unique_ptr<Subject> subject_, next_;
  std::optional<Bench> bench_;
  std::string state_;
};

std::vector<const DeviceCase*> all() {
  std::vector<const DeviceCase*> cases;
  for (const DeviceCase& device : deviceCases()) cases.push_back(&device);
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Devices, HostileState, ::testing::ValuesIn(all()),
                         [](const auto& each) { return each.param->name; });

TEST_P(HostileState, RestoredDeviceGoesOnWhereItStopped) {
  ASSERT_TRUE(loads(state_));
  EXPECT_FALSE(bench_->needsReset());
  EXPECT_TRUE(next_->serves(*bench_));
  EXPECT_TRUE(next_->serves(*bench_));
  bench_->start();
  EXPECT_TRUE(next_->serves(*bench_));
}

TEST_P(HostileState, SavingChangesNothing) {
  EXPECT_EQ(bench_->save(), state_);
  EXPECT_TRUE(subject_->serves(*bench_));
}

TEST_P(HostileState, DeviceThatNeverStartedIsRestored) {
  bench_->reset();
  ASSERT_TRUE(loads(bench_->save()));
  EXPECT_EQ(bench_->status(), 0u);
  bench_->start();
  EXPECT_TRUE(next_->serves(*bench_));
}

TEST_P(HostileState, EveryTruncationIsRefused) {
  for (size_t size = 0; size < state_.size(); ++size) {
    again();
    EXPECT_FALSE(loads(std::string_view(state_).substr(0, size))) << size;
  }
}

TEST_P(HostileState, EveryChangedByteIsRefusedOrHarmless) {
  for (size_t at = 0; at < state_.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      again();
      std::string bad = state_;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      if (!loads(bad)) continue;
      next_->stir();
      bench_->kick();
      bench_->start();
      EXPECT_TRUE(next_->serves(*bench_)) << at << " " << flip;
    }
  }
}

// Rings that lie elsewhere: in the hole for devices, past the memory, wrapping around.
TEST_P(HostileState, QueuesOutsideOfMemoryAreRefused) {
  constexpr size_t kFirstQueue = 33;  // MmioTransport::save
  for (const size_t field : {size_t{2}, size_t{10}, size_t{18}}) {
    for (const uint64_t address : {layout::kGapStart, layout::kVirtioBase, ~uint64_t{15},
                                   layout::kGapEnd + layout::kGiB, layout::kGapStart - 16}) {
      again();
      std::string bad = state_;
      std::memcpy(bad.data() + kFirstQueue + field, &address, sizeof address);
      EXPECT_FALSE(loads(bad)) << field << " " << std::hex << address;
    }
  }
}

}  // namespace
}  // namespace hull::vmm::virtio::hostile
