// The hostile grid, line "transport": what a guest can do to the registers, on every device
// (device_cases.h). A register access never has an effect that the driver was not entitled to at
// that moment, and a driver that then does everything right is served.
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "vmm/hostile/device_cases.h"

namespace hull::vmm::virtio::hostile {
namespace {

using testing::ChainBuilder;

constexpr uint64_t kWindowBytes = layout::kVirtioBytes;
constexpr uint32_t kRunning = kAcknowledge | kDriver | kFeaturesOk | kDriverOk;

class HostileTransport : public ::testing::TestWithParam<const DeviceCase*> {
 protected:
  void SetUp() override {
    subject_ = GetParam()->make();
    if (!subject_->missing().empty()) GTEST_SKIP() << subject_->missing();
    bench_.emplace(*subject_);
  }
  void expectServes() {
    bench_->start();
    EXPECT_EQ(bench_->status(), kRunning);
    EXPECT_TRUE(subject_->serves(*bench_));
  }
  void write(uint64_t offset, size_t width, uint64_t value) {
    std::array<std::byte, 8> bytes{};
    std::memcpy(bytes.data(), &value, sizeof value);
    bench_->transport().write(offset, std::span(bytes).first(width));
  }
  uint64_t read(uint64_t offset, size_t width) {
    std::array<std::byte, 8> bytes{};
    bench_->transport().read(offset, std::span(bytes).first(width));
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  std::unique_ptr<Subject> subject_;
  std::optional<Bench> bench_;
};

std::vector<const DeviceCase*> everyDevice() {
  std::vector<const DeviceCase*> all;
  for (const DeviceCase& device : deviceCases()) all.push_back(&device);
  return all;
}

INSTANTIATE_TEST_SUITE_P(EveryDevice, HostileTransport, ::testing::ValuesIn(everyDevice()),
                         [](const auto& each) { return each.param->name; });

TEST_P(HostileTransport, OddWidthsAndAccessesAcrossRegistersDoNothing) {
  for (const size_t width : {1u, 2u, 4u, 8u}) {
    for (uint64_t offset = 0; offset + width <= 0x100; ++offset) {
      if (width == 4 && offset % 4 == 0) continue;
      EXPECT_EQ(read(offset, width), 0u);
      write(offset, width, UINT64_MAX);
      ASSERT_EQ(bench_->status(), 0u) << offset << " " << width;
    }
  }
  expectServes();
}

TEST_P(HostileTransport, AccessesEndWithTheWindow) {
  for (const size_t width : {1u, 2u, 4u, 8u}) {
    for (uint64_t offset = 0x100; offset + width <= kWindowBytes; ++offset) {
      read(offset, width);
      write(offset, width, UINT64_MAX);
    }
  }
  expectServes();
}

TEST_P(HostileTransport, EveryRegisterTakesEveryValueInEveryState) {
  for (const uint32_t value : {0u, 1u, 0xffu, 0x80000000u, UINT32_MAX}) {
    for (uint64_t offset = 0; offset < kWindowBytes; offset += 4) {
      bench_->set(offset, value);
      bench_->get(offset);
    }
    bench_->reset();
    bench_->negotiate(bench_->offered());
    for (uint64_t offset = 0; offset < kWindowBytes; offset += 4) bench_->set(offset, value);
    bench_->start();
    for (uint64_t offset = 0; offset < kWindowBytes; offset += 4) bench_->set(offset, value);
    bench_->turn();
  }
  expectServes();
}

TEST_P(HostileTransport, QueueSelectOutOfRangeReachesNoQueue) {
  bench_->negotiate(bench_->offered());
  for (const uint32_t select : {bench_->queues(), 0xffffu, 0x10000u, 0x80000000u, UINT32_MAX}) {
    bench_->set(kQueueSelect, select);
    EXPECT_EQ(bench_->get(kQueueSizeMax), 0u);
    bench_->set(kQueueSize, 8);
    bench_->set(kQueueReady, 1);
    EXPECT_EQ(bench_->get(kQueueReady), 0u);
    bench_->set(kQueueNotify, select);
    bench_->turn();
  }
  expectServes();
}

TEST_P(HostileTransport, FeaturesOutsideOfTheOfferAreRefused) {
  const uint64_t offered = bench_->offered();
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t extra = uint64_t{1} << bit;
    if ((offered & extra) != 0) continue;
    bench_->reset();
    bench_->negotiate(offered | extra);
    ASSERT_EQ(bench_->status(), kAcknowledge | kDriver) << bit;
  }
  expectServes();
}

TEST_P(HostileTransport, FeaturesWithoutVersion1AreRefused) {
  bench_->negotiate(bench_->offered() & ~kFeatureVersion1);
  EXPECT_EQ(bench_->status(), kAcknowledge | kDriver);
  expectServes();
}

TEST_P(HostileTransport, FeaturesWrittenOutsideOfDriverDoNotCount) {
  bench_->set(kDriverFeaturesSelect, 1);
  bench_->set(kDriverFeatures, 1);  // VERSION_1, before anything
  bench_->set(kStatus, kAcknowledge);
  bench_->set(kDriverFeatures, 1);
  bench_->set(kStatus, kAcknowledge | kDriver);
  bench_->set(kStatus, kAcknowledge | kDriver | kFeaturesOk);
  EXPECT_EQ(bench_->status(), kAcknowledge | kDriver);
  bench_->start();
  bench_->set(kDriverFeaturesSelect, 0);
  bench_->set(kDriverFeatures, 0);  // too late
  EXPECT_TRUE(subject_->serves(*bench_));
  expectServes();
}

TEST_P(HostileTransport, StatusOutOfOrderDoesNotHappen) {
  for (uint32_t value = 1; value < 256; ++value) {
    bench_->reset();
    bench_->set(kStatus, value);
    const uint32_t status = bench_->status();
    EXPECT_EQ(status & (kFeaturesOk | kDriverOk | kNeedsReset), 0u) << value;
    if ((status & kDriver) != 0) {
      EXPECT_NE(status & kAcknowledge, 0u) << value;
    }
  }
  expectServes();
}

TEST_P(HostileTransport, ClearedStatusBitsStay) {
  bench_->start();
  for (uint32_t value = 1; value < kRunning; ++value) {
    bench_->set(kStatus, value);
    ASSERT_EQ(bench_->status() & kRunning, kRunning) << value;
  }
  EXPECT_TRUE(subject_->serves(*bench_));
  expectServes();
}

TEST_P(HostileTransport, QueuesRewrittenAfterDriverOkStayWhatTheyWere) {
  bench_->start();
  for (uint32_t i = 0; i < bench_->queues(); ++i) {
    bench_->set(kQueueSelect, i);
    bench_->set(kQueueReady, 0);
    bench_->setQueue(i, {2, UINT64_MAX, layout::kVirtioBase, 0});
  }
  bench_->turn();
  EXPECT_FALSE(bench_->needsReset());
  EXPECT_TRUE(subject_->serves(*bench_));
  expectServes();
}

TEST_P(HostileTransport, DriverOkTwiceDoesNotStartTwice) {
  bench_->start();
  for (int i = 0; i < 3; ++i) bench_->driverOk();
  EXPECT_EQ(bench_->status(), kRunning);
  EXPECT_TRUE(subject_->serves(*bench_));
}

TEST_P(HostileTransport, NotifyBeforeReadyReachesNobody) {
  bench_->kick();
  bench_->negotiate(bench_->offered());
  bench_->kick();
  for (uint32_t i = 0; i < bench_->queues(); ++i) {
    bench_->setQueue(i, bench_->queue(i).layout());
    bench_->kick();
  }
  for (uint32_t i = 0; i < bench_->queues(); ++i) EXPECT_EQ(bench_->queue(i).usedIndex(), 0);
  expectServes();
}

// After a reset the rings and buffers belong to the driver again: not a byte of them changes.
TEST_P(HostileTransport, ResetDuringRequestsLeavesTheMemoryAlone) {
  constexpr GuestAddress kStart = 0x10000;
  const uint64_t bytes = bench_->queues() * Bench::kQueueSpacing;
  for (int round = 0; round < 4; ++round) {
    bench_->start();
    for (uint32_t i = 0; i < bench_->queues(); ++i) {
      for (int n = 0; n < Bench::kRingSize / 2; ++n) {
        ChainBuilder(bench_->queue(i)).readable(std::string(64, 'x')).writable(512).send();
      }
    }
    subject_->stir();
    bench_->set(kQueueNotify, 0);
    if (round % 2 == 1) bench_->transport().onNotify();
    bench_->set(kStatus, 0);
    EXPECT_EQ(bench_->status(), 0u);
    const auto memory = bench_->memory().iovecOf(kStart, bytes);
    std::memset(memory->iov_base, 0x5a, bytes);
    bench_->kick();
    const std::string_view after(static_cast<const char*>(memory->iov_base), bytes);
    EXPECT_EQ(after.find_first_not_of('\x5a'), std::string_view::npos);
  }
  expectServes();
}

}  // namespace
}  // namespace hull::vmm::virtio::hostile
