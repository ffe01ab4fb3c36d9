#include "vmm/virtio/mmio/transport.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "vmm/memory/layout.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/testing/inline_thread.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::InlineThread;

// Echoes nothing, counts everything.
class Recorder final : public Device {
 public:
  DeviceType type() const noexcept override { return DeviceType::kBlock; }
  uint64_t features() const noexcept override { return 0x20; }
  std::span<const uint16_t> queueSizes() const noexcept override { return sizes; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(space));
  }
  void activate(Activation&& activation) noexcept override {
    ++activations;
    features_seen = activation.features;
    host = &activation.host;
    queues = std::move(activation.queues);
  }
  void notify() noexcept override { ++notifications; }
  void reset() noexcept override {
    ++resets;
    queues.clear();
  }
  std::vector<QueuePosition> queuePositions() const noexcept override {
    std::vector<QueuePosition> positions;
    for (const Queue& queue : queues) positions.push_back(queue.position());
    return positions;
  }
  void save(ByteWriter& out) const override { out.u32(saved); }
  bool load(ByteReader& in) override {
    saved = in.u32();
    return in.ok();
  }

  std::array<uint16_t, 2> sizes{256, 128};
  std::array<uint8_t, 6> space{1, 2, 3, 4, 5, 6};
  int activations = 0, resets = 0, notifications = 0;
  uint64_t features_seen = 0;
  uint32_t saved = 42;
  DeviceHost* host = nullptr;
  std::vector<Queue> queues;
};

enum : uint32_t { kAck = 1, kDriver = 2, kDriverOk = 4, kFeaturesOk = 8, kNeedsReset = 64 };

class TransportTest : public ::testing::Test {
 protected:
  uint32_t get(uint64_t offset) { return getFrom(transport_, offset); }
  static uint32_t getFrom(MmioTransport& transport, uint64_t offset) {
    uint32_t value = 0;
    transport.read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void set(uint64_t offset, uint32_t value) {
    transport_.write(offset, std::as_bytes(std::span(&value, 1)));
  }
  uint32_t status() { return get(0x70); }

  void negotiate(uint64_t features = kFeatureVersion1) {
    set(0x70, kAck);
    set(0x70, kAck | kDriver);
    set(0x24, 0);
    set(0x20, static_cast<uint32_t>(features));
    set(0x24, 1);
    set(0x20, static_cast<uint32_t>(features >> 32));
    set(0x70, kAck | kDriver | kFeaturesOk);
  }
  void setQueue(uint32_t index, const QueueLayout& layout) {
    set(0x30, index);
    set(0x38, layout.size);
    set(0x80, static_cast<uint32_t>(layout.descriptors));
    set(0x84, static_cast<uint32_t>(layout.descriptors >> 32));
    set(0x90, static_cast<uint32_t>(layout.available));
    set(0x94, static_cast<uint32_t>(layout.available >> 32));
    set(0xa0, static_cast<uint32_t>(layout.used));
    set(0xa4, static_cast<uint32_t>(layout.used >> 32));
    set(0x44, 1);
  }
  void setQueues() {
    setQueue(0, first_.layout());
    setQueue(1, second_.layout());
  }
  void driverOk() { set(0x70, kAck | kDriver | kFeaturesOk | kDriverOk); }
  void start() {
    negotiate();
    setQueues();
    driverOk();
    ASSERT_EQ(device_.activations, 1);
  }

  GuestMemory memory_{testing::kTestMemoryBytes};
  InlineThread thread_;
  Recorder device_;
  MmioTransport transport_{memory_, device_, thread_};
  FakeDriver first_{memory_, 8, 0x10000};
  FakeDriver second_{memory_, 8, 0x40000};
};

TEST_F(TransportTest, Identifies) {
  EXPECT_EQ(get(0x0), 0x74726976u);
  EXPECT_EQ(get(0x4), 2u);
  EXPECT_EQ(get(0x8), 2u);
  set(0x14, 0);
  EXPECT_EQ(get(0x10), 0x30000020u);  // indirect, event idx, and the device's own
  set(0x14, 1);
  EXPECT_EQ(get(0x10), 1u);  // VERSION_1
  set(0x14, 7);
  EXPECT_EQ(get(0x10), 0u);
  EXPECT_EQ(get(0xb0), UINT32_MAX);  // no shared memory
  EXPECT_EQ(get(0xfc), 0u);
}

TEST_F(TransportTest, ConfigurationTakesAnyAccessAndEnds) {
  uint16_t pair = 0;
  transport_.read(0x101, std::as_writable_bytes(std::span(&pair, 1)));
  EXPECT_EQ(pair, 0x0302);
  uint64_t wide = UINT64_MAX;
  transport_.read(0x104, std::as_writable_bytes(std::span(&wide, 1)));
  EXPECT_EQ(wide, 0x0605u);
  transport_.read(0x1f8, std::as_writable_bytes(std::span(&wide, 1)));
  EXPECT_EQ(wide, 0u);
  set(0x100, 0xffffffff);
  EXPECT_EQ(device_.space[0], 1);
}

TEST_F(TransportTest, OnlyAlignedWordsReachRegisters) {
  uint8_t byte = 0xee;
  transport_.read(0, std::as_writable_bytes(std::span(&byte, 1)));
  EXPECT_EQ(byte, 0);
  uint64_t wide = 0xee;
  transport_.read(0, std::as_writable_bytes(std::span(&wide, 1)));
  EXPECT_EQ(wide, 0u);
  EXPECT_EQ(get(0x2), 0u);
  byte = kAck;
  transport_.write(0x70, std::as_bytes(std::span(&byte, 1)));
  EXPECT_EQ(status(), 0u);
  wide = kAck;
  transport_.write(0x70, std::as_bytes(std::span(&wide, 1)));
  EXPECT_EQ(status(), 0u);
}

TEST_F(TransportTest, StartsInOrder) {
  start();
  EXPECT_EQ(status(), uint32_t{kAck | kDriver | kFeaturesOk | kDriverOk});
  EXPECT_EQ(device_.features_seen, kFeatureVersion1);
  ASSERT_EQ(device_.queues.size(), 2u);
  EXPECT_EQ(device_.queues[0].size(), 8);
}

TEST_F(TransportTest, StatusStepsOutOfOrderDoNotHappen) {
  set(0x70, kDriver);
  EXPECT_EQ(status(), 0u);
  set(0x70, kFeaturesOk | kDriverOk);
  EXPECT_EQ(status(), 0u);
  set(0x70, kAck);
  set(0x70, kAck | kDriverOk);
  EXPECT_EQ(status(), uint32_t{kAck});
  EXPECT_EQ(device_.activations, 0);
}

TEST_F(TransportTest, ClearingStatusBitsIsIgnored) {
  negotiate();
  set(0x70, kAck);
  EXPECT_EQ(status(), uint32_t{kAck | kDriver | kFeaturesOk});
}

TEST_F(TransportTest, FeaturesOutsideTheOfferAreRefused) {
  negotiate(kFeatureVersion1 | uint64_t{1} << 40);
  EXPECT_EQ(status(), uint32_t{kAck | kDriver});
}

TEST_F(TransportTest, FeaturesWithoutVersion1AreRefused) {
  negotiate(0x20);
  EXPECT_EQ(status(), uint32_t{kAck | kDriver});
  setQueues();
  driverOk();
  EXPECT_EQ(device_.activations, 0);
}

TEST_F(TransportTest, FeaturesOutsideTheirPhaseAreIgnored) {
  set(0x24, 1);
  set(0x20, 1);  // before DRIVER
  set(0x70, kAck);
  set(0x70, kAck | kDriver);
  set(0x70, kAck | kDriver | kFeaturesOk);
  EXPECT_EQ(status(), uint32_t{kAck | kDriver});
  set(0x20, 1);
  set(0x70, kAck | kDriver | kFeaturesOk);
  EXPECT_EQ(status(), uint32_t{kAck | kDriver | kFeaturesOk});
  set(0x20, 0);  // after FEATURES_OK
  setQueues();
  driverOk();
  EXPECT_EQ(device_.features_seen, kFeatureVersion1);
}

TEST_F(TransportTest, QueueSelectOutOfRange) {
  negotiate();
  set(0x30, 2);
  EXPECT_EQ(get(0x34), 0u);
  EXPECT_EQ(get(0x44), 0u);
  set(0x38, 8);
  set(0x44, 1);
  EXPECT_EQ(get(0x44), 0u);
  set(0x30, UINT32_MAX);
  set(0x44, 1);
  set(0x30, 1);
  EXPECT_EQ(get(0x34), 128u);
}

TEST_F(TransportTest, QueueRegistersAreFixedOnceReadyOrRunning) {
  start();
  set(0x30, 0);
  set(0x44, 0);
  EXPECT_EQ(get(0x44), 1u);
  set(0x38, 16);
  EXPECT_EQ(device_.queues[0].size(), 8);
}

TEST_F(TransportTest, StartWithAMissingQueueNeedsReset) {
  negotiate();
  setQueue(0, first_.layout());
  driverOk();
  EXPECT_EQ(device_.activations, 0);
  EXPECT_TRUE((status() & kNeedsReset) != 0);
}

TEST_F(TransportTest, StartWithBadQueuesNeedsReset) {
  for (const QueueLayout& bad :
       {QueueLayout{0, 0x10000, 0x15000, 0x18000}, QueueLayout{512, 0x10000, 0x15000, 0x18000},
        QueueLayout{8, layout::kVirtioBase, 0x15000, 0x18000},
        QueueLayout{8, ~uint64_t{15}, 0x15000, 0x18000}}) {
    set(0x70, 0);
    negotiate();
    setQueue(0, bad);
    setQueue(1, second_.layout());
    driverOk();
    EXPECT_EQ(device_.activations, 0);
    EXPECT_TRUE((status() & kNeedsReset) != 0);
  }
  set(0x70, 0);
  EXPECT_EQ(status(), 0u);
  start();
}

TEST_F(TransportTest, QueueSizeBeyondSixteenBitsIsRefused) {
  negotiate();
  setQueues();
  set(0x30, 0);
  set(0x44, 0);
  set(0x38, 0x10008);
  set(0x44, 1);
  driverOk();
  EXPECT_EQ(device_.activations, 0);
}

TEST_F(TransportTest, NotifyBeforeStartReachesNobody) {
  set(0x50, 0);
  transport_.onNotify();
  EXPECT_EQ(device_.notifications, 0);
  start();
  set(0x50, 0);
  transport_.onNotify();
  EXPECT_EQ(device_.notifications, 1);
}

TEST_F(TransportTest, InterruptStatusIsSetSignalledAndAcknowledged) {
  start();
  device_.host->interrupt();
  uint64_t count = 0;
  EXPECT_EQ(read(transport_.interruptFd(), &count, sizeof count), 8);
  EXPECT_EQ(get(0x60), 1u);
  set(0x64, 1);
  EXPECT_EQ(get(0x60), 0u);
}

TEST_F(TransportTest, BrokenDeviceStopsUntilReset) {
  start();
  device_.host->needsReset("test");
  EXPECT_TRUE((status() & kNeedsReset) != 0);
  EXPECT_EQ(get(0x60), 2u);  // configuration change
  thread_.runPosted();
  EXPECT_EQ(device_.resets, 1);
  set(0x50, 0);
  transport_.onNotify();
  EXPECT_EQ(device_.notifications, 0);
  set(0x70, 0);
  EXPECT_EQ(status(), 0u);
  EXPECT_EQ(device_.resets, 1);
  device_.activations = 0;
  start();
}

TEST_F(TransportTest, ResetRightAfterAFaultDoesNotStopTheNextDriver) {
  start();
  device_.host->needsReset("test");
  set(0x70, 0);
  device_.activations = 0;
  start();
  thread_.runPosted();
  set(0x50, 0);
  transport_.onNotify();
  EXPECT_EQ(device_.notifications, 1);
}

TEST_F(TransportTest, ResetForgetsEverything) {
  start();
  set(0x70, 0);
  EXPECT_EQ(device_.resets, 1);
  EXPECT_EQ(status(), 0u);
  set(0x30, 0);
  EXPECT_EQ(get(0x44), 0u);
  set(0x70, 0);
  EXPECT_EQ(device_.resets, 1);
}

TEST_F(TransportTest, StateSurvivesSaveAndLoad) {
  start();
  ChainBuilder(first_).readable("x").send();
  auto chain = device_.queues[0].pop();
  device_.queues[0].push(std::move(*chain), 0);
  device_.host->interrupt();
  device_.saved = 7;
  ByteWriter out;
  transport_.save(out);

  Recorder other;
  MmioTransport copy(memory_, other, thread_);
  ByteReader in(out.bytes());
  ASSERT_TRUE(copy.load(in));
  EXPECT_TRUE(in.complete());
  EXPECT_EQ(other.activations, 1);
  EXPECT_EQ(other.saved, 7u);
  EXPECT_EQ(other.queues[0].position().next_available, 1);
  EXPECT_EQ(other.queues[0].position().next_used, 1);
  EXPECT_EQ(getFrom(copy, 0x70), status());
  EXPECT_EQ(getFrom(copy, 0x60), 1u);
}

TEST_F(TransportTest, CraftedStateIsRefused) {
  start();
  ByteWriter out;
  transport_.save(out);
  for (size_t size = 0; size < out.bytes().size(); ++size) {
    Recorder other;
    MmioTransport copy(memory_, other, thread_);
    ByteReader in(std::string_view(out.bytes()).substr(0, size));
    EXPECT_FALSE(copy.load(in)) << size;
  }
  std::string bad = out.bytes();
  bad[33] = '\xff';  // the size of queue 0, behind 8 fields
  bad[34] = '\xff';
  Recorder other;
  MmioTransport copy(memory_, other, thread_);
  ByteReader in(bad);
  EXPECT_FALSE(copy.load(in));
}

TEST_F(TransportTest, StateThatNoDriverCanReachIsRefused) {
  start();
  ByteWriter out;
  transport_.save(out);
  const auto refused = [&](size_t offset, char value) {
    std::string bad = out.bytes();
    bad[offset] = value;
    Recorder other;
    MmioTransport copy(memory_, other, thread_);
    ByteReader in(bad);
    return !copy.load(in) && other.activations == 0;
  };
  EXPECT_FALSE(refused(0, out.bytes()[0]));
  EXPECT_TRUE(refused(0, 0x10));        // status: a bit that there is not
  EXPECT_TRUE(refused(0, 0x4f));        // running, and asking for its reset
  EXPECT_TRUE(refused(0, 0x0b));        // active without DRIVER_OK
  EXPECT_TRUE(refused(4, 0x04));        // interrupt status
  EXPECT_TRUE(refused(20, 0x40));       // a feature that was not offered
  EXPECT_TRUE(refused(24, 0x00));       // no VERSION_1
  EXPECT_TRUE(refused(32, 0x02));       // neither active nor not
  EXPECT_TRUE(refused(33, 0x07));       // queue 0: size not a power of two
  EXPECT_TRUE(refused(42, 0x7f));       // queue 0: descriptors outside of memory
  EXPECT_TRUE(refused(33 + 26, 0x00));  // queue 0 is not ready
}

TEST_F(TransportTest, InterruptOfASavedDeviceIsRepeated) {
  start();
  device_.host->interrupt();
  ByteWriter out;
  transport_.save(out);
  Recorder other;
  MmioTransport copy(memory_, other, thread_);
  ByteReader in(out.bytes());
  ASSERT_TRUE(copy.load(in));
  uint64_t count = 0;
  EXPECT_EQ(read(copy.interruptFd(), &count, sizeof count), 8);
}

TEST_F(TransportTest, DeviceThatBrokeIsSavedAsStopped) {
  start();
  device_.host->needsReset("test");
  ByteWriter out;
  transport_.save(out);
  Recorder other;
  MmioTransport copy(memory_, other, thread_);
  ByteReader in(out.bytes());
  ASSERT_TRUE(copy.load(in));
  EXPECT_TRUE(in.complete());
  EXPECT_EQ(other.activations, 0);
  EXPECT_EQ(getFrom(copy, 0x70), status());
}

}  // namespace
}  // namespace hull::vmm::virtio
