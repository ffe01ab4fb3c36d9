// The hostile grid, lines "chain", "addresses" and "rings": what a guest can do to a virtqueue, on
// every queue of every device (device_cases.h). The verdict is always the same: the device asks for
// its reset or does not care, nothing outside of its buffers changes, and after a reset it serves.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "vmm/hostile/device_cases.h"

namespace hull::vmm::virtio::hostile {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;

struct Target {
  const DeviceCase* device;
  uint32_t queue;
};

std::vector<Target> targets() {
  std::vector<Target> all;
  for (const DeviceCase& device : deviceCases()) {
    for (uint32_t i = 0; i < device.queues.size(); ++i) all.push_back({&device, i});
  }
  return all;
}

void PrintTo(const Target& target, std::ostream* out) {
  *out << target.device->name << target.device->queues[target.queue].name;
}

class HostileQueue : public ::testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    subject_ = GetParam().device->make();
    if (!subject_->missing().empty()) GTEST_SKIP() << subject_->missing();
    bench_.emplace(*subject_);
    ASSERT_EQ(subject_->device().queueSizes().size(), GetParam().device->queues.size());
    bench_->start();
    ASSERT_FALSE(bench_->needsReset());
  }

  FakeDriver& queue() { return bench_->queue(GetParam().queue); }
  bool lookedAt() const { return GetParam().device->queues[GetParam().queue].looked_at; }

  void strike() {
    subject_->stir();
    bench_->kick();
  }
  // A driver that starts anew is served.
  void expectRecovers() {
    bench_->start();
    EXPECT_FALSE(bench_->needsReset());
    EXPECT_TRUE(subject_->serves(*bench_));
  }
  // The ring breaks once the device looks at it, and nothing happens in it any more.
  void expectBreaks() {
    strike();
    EXPECT_EQ(bench_->needsReset(), lookedAt());
    const uint16_t used = queue().usedIndex();
    strike();
    EXPECT_EQ(queue().usedIndex(), used);
    expectRecovers();
  }
  // `descriptor` as the only one of a chain, as readable and as writable buffer.
  void expectBufferBreaks(GuestAddress address, uint32_t length) {
    for (const uint16_t flags : {uint16_t{0}, kDescriptorWrite}) {
      bench_->start();
      queue().setDescriptor(0, {address, length, flags, 0});
      queue().makeAvailable(0);
      SCOPED_TRACE(::testing::Message() << std::hex << address << "+" << length);
      expectBreaks();
    }
  }
  void makeIndirect(GuestAddress table, uint32_t bytes, uint16_t more_flags = 0) {
    queue().setDescriptor(
        0, {table, bytes, static_cast<uint16_t>(kDescriptorIndirect | more_flags), 1});
    queue().makeAvailable(0);
  }
  GuestAddress tableOf(std::initializer_list<Descriptor> descriptors) {
    return queue().allocate(
        std::as_bytes(std::span<const Descriptor>(descriptors.begin(), descriptors.size())));
  }
  // The device does not start on such a ring, and starts on a good one afterwards.
  void expectRefused(const QueueLayout& bad) {
    bench_->reset();
    bench_->negotiate(bench_->offered());
    for (uint32_t i = 0; i < bench_->queues(); ++i) {
      bench_->setQueue(i, i == GetParam().queue ? bad : bench_->queue(i).layout());
    }
    bench_->driverOk();
    EXPECT_TRUE(bench_->needsReset());
    strike();
    expectRecovers();
  }

  std::unique_ptr<Subject> subject_;
  std::optional<Bench> bench_;
};

INSTANTIATE_TEST_SUITE_P(EveryDevice, HostileQueue, ::testing::ValuesIn(targets()),
                         ::testing::PrintToStringParamName());

// ---- chains -------------------------------------------------------------------------------------

TEST_P(HostileQueue, ChainThatLoopsToItselfBreaks) {
  queue().setDescriptor(0, {queue().allocate(64), 64, kDescriptorNext, 0});
  queue().makeAvailable(0);
  expectBreaks();
}

TEST_P(HostileQueue, ChainLongerThanTheQueueBreaks) {
  const GuestAddress buffer = queue().allocate(64);
  for (uint16_t i = 0; i < Bench::kRingSize; ++i) {
    const auto next = static_cast<uint16_t>((i + 1) % Bench::kRingSize);
    queue().setDescriptor(i, {buffer, 8, kDescriptorNext, next});
  }
  queue().makeAvailable(3);
  expectBreaks();
}

TEST_P(HostileQueue, NextOutsideOfTheTableBreaks) {
  for (const int next : {Bench::kRingSize + 0, 0x8000, UINT16_MAX}) {
    bench_->start();
    queue().setDescriptor(0,
                          {queue().allocate(64), 64, kDescriptorNext, static_cast<uint16_t>(next)});
    queue().makeAvailable(0);
    expectBreaks();
  }
}

TEST_P(HostileQueue, HeadOutsideOfTheTableBreaks) {
  for (const int head : {Bench::kRingSize + 0, UINT16_MAX}) {
    bench_->start();
    queue().makeAvailable(static_cast<uint16_t>(head));
    expectBreaks();
  }
}

TEST_P(HostileQueue, ReadableAfterWritableBreaks) {
  const GuestAddress buffer = queue().allocate(64);
  queue().setDescriptor(0, {buffer, 64, kDescriptorWrite | kDescriptorNext, 1});
  queue().setDescriptor(1, {buffer, 64, 0, 0});
  queue().makeAvailable(0);
  expectBreaks();
}

TEST_P(HostileQueue, NestedIndirectBreaks) {
  const GuestAddress buffer = queue().allocate(64);
  const GuestAddress inner = tableOf({{buffer, 64, 0, 0}});
  makeIndirect(tableOf({{inner, sizeof(Descriptor), kDescriptorIndirect, 0}}), sizeof(Descriptor));
  expectBreaks();
}

TEST_P(HostileQueue, IndirectWithNextBreaks) {
  const GuestAddress buffer = queue().allocate(64);
  queue().setDescriptor(1, {buffer, 64, 0, 0});
  makeIndirect(tableOf({{buffer, 64, 0, 0}}), sizeof(Descriptor), kDescriptorNext);
  expectBreaks();
}

TEST_P(HostileQueue, IndirectWithoutTheFeatureBreaks) {
  bench_->start(kFeatureIndirect);
  makeIndirect(tableOf({{queue().allocate(64), 64, 0, 0}}), sizeof(Descriptor));
  expectBreaks();
}

TEST_P(HostileQueue, IndirectTableOfNoEntriesBreaks) {
  makeIndirect(queue().allocate(64), 0);
  expectBreaks();
}

TEST_P(HostileQueue, IndirectTableOfPartialEntriesBreaks) {
  for (const uint32_t bytes : {1u, 15u, 17u, 40u}) {
    bench_->start();
    makeIndirect(tableOf({{queue().allocate(64), 8, 0, 0}, {}, {}}), bytes);
    expectBreaks();
  }
}

TEST_P(HostileQueue, IndirectTableOverItsLimitBreaks) {
  constexpr uint32_t kMaxEntries = 32768;
  for (const uint32_t entries : {kMaxEntries + 1, UINT32_MAX / 16}) {
    bench_->start();
    makeIndirect(tableOf({{queue().allocate(64), 8, 0, 0}}), entries * 16);
    expectBreaks();
  }
}

TEST_P(HostileQueue, IndirectTableOutsideOfMemoryBreaks) {
  for (const GuestAddress table :
       {layout::kVirtioBase, layout::kGapStart - 16, UINT64_MAX - 15, uint64_t{1} << 40}) {
    bench_->start();
    makeIndirect(table, 2 * sizeof(Descriptor));
    expectBreaks();
  }
}

TEST_P(HostileQueue, IndirectLoopBreaks) {
  const GuestAddress buffer = queue().allocate(64);
  makeIndirect(tableOf({{buffer, 8, kDescriptorNext, 1}, {buffer, 8, kDescriptorNext, 0}}),
               2 * sizeof(Descriptor));
  expectBreaks();
}

// No error by itself: what it says is nothing. A request that consists of nothing is one.
TEST_P(HostileQueue, ZeroLengthBuffersHarmNobody) {
  for (const uint16_t flags : {uint16_t{0}, kDescriptorWrite}) {
    bench_->start();
    queue().setDescriptor(0, {UINT64_MAX, 0, static_cast<uint16_t>(flags | kDescriptorNext), 1});
    queue().setDescriptor(1, {0, 0, flags, 0});
    queue().makeAvailable(0);
    strike();
    expectRecovers();
  }
}

// ---- addresses ----------------------------------------------------------------------------------

TEST_P(HostileQueue, BufferThatWrapsBreaks) {
  expectBufferBreaks(UINT64_MAX - 7, 16);
  expectBufferBreaks(UINT64_MAX, UINT32_MAX);
}

TEST_P(HostileQueue, BufferAcrossTheDeviceHoleBreaks) {
  expectBufferBreaks(layout::kGapStart - 8, 16);
  expectBufferBreaks(layout::kGapEnd - 8, 16);
  expectBufferBreaks(layout::kVirtioBase, 16);
  expectBufferBreaks(layout::kLocalApicBase, 16);
}

TEST_P(HostileQueue, BufferPastTheMemoryBreaks) {
  const auto& last = bench_->memory().ranges().back();
  expectBufferBreaks(last.start + last.bytes - 8, 16);
  expectBufferBreaks(last.start + last.bytes, 1);
  expectBufferBreaks(0x20000, UINT32_MAX);
}

// The device reads and writes its own rings as if they were data: the guest's own trouble.
TEST_P(HostileQueue, BuffersOverItsOwnRingsHarmNobodyElse) {
  const QueueLayout rings = queue().layout();
  for (const GuestAddress part : {rings.descriptors, rings.available, rings.used}) {
    for (const uint16_t flags : {uint16_t{0}, kDescriptorWrite}) {
      bench_->start();
      queue().setDescriptor(0, {part, 128, flags, 0});
      queue().makeAvailable(0);
      strike();
      strike();
      expectRecovers();
    }
  }
}

// ---- rings --------------------------------------------------------------------------------------

TEST_P(HostileQueue, RingOfABadSizeIsRefused) {
  const auto most = subject_->device().queueSizes()[GetParam().queue];
  for (const int size : {0, 3, 7, most + 1, most * 2, 0x8000}) {
    QueueLayout bad = queue().layout();
    bad.size = static_cast<uint16_t>(size);
    SCOPED_TRACE(size);
    expectRefused(bad);
  }
}

TEST_P(HostileQueue, MisalignedRingIsRefused) {
  QueueLayout bad = queue().layout();
  bad.descriptors += 8;
  expectRefused(bad);
  bad = queue().layout();
  bad.available += 1;
  expectRefused(bad);
  bad = queue().layout();
  bad.used += 2;
  expectRefused(bad);
}

TEST_P(HostileQueue, RingOutsideOfMemoryIsRefused) {
  const auto& last = bench_->memory().ranges().back();
  for (const GuestAddress where :
       {layout::kVirtioBase, layout::kGapStart - 16, last.start + last.bytes - 16,
        last.start + last.bytes, uint64_t{1} << 52, UINT64_MAX - 15}) {
    QueueLayout bad = queue().layout();
    bad.descriptors = where;
    expectRefused(bad);
    bad = queue().layout();
    bad.available = where;
    expectRefused(bad);
    bad = queue().layout();
    bad.used = where;
    expectRefused(bad);
  }
}

TEST_P(HostileQueue, AvailableIndexThatJumpsBreaks) {
  for (const int index : {Bench::kRingSize + 1, 0x8000, 0xffff}) {
    bench_->start();
    queue().setAvailableIndex(static_cast<uint16_t>(index));
    expectBreaks();
  }
}

TEST_P(HostileQueue, ScribbledUsedRingDoesNotMatter) {
  const QueueLayout rings = queue().layout();
  const std::vector<std::byte> noise(4 + Bench::kRingSize * 8, std::byte{0xff});
  queue().write(rings.used, noise);
  strike();
  EXPECT_FALSE(bench_->needsReset());
  queue().write(rings.used, noise);
  EXPECT_TRUE(subject_->serves(*bench_));
}

TEST_P(HostileQueue, ExtremeEventIndexesDoNotMatter) {
  for (const int index : {0, 1, Bench::kRingSize + 0, 0x7fff, 0x8000, 0xffff}) {
    bench_->start();
    for (const int flags : {0, 1, UINT16_MAX}) {
      queue().setUsedEvent(static_cast<uint16_t>(index));
      queue().setAvailableFlags(static_cast<uint16_t>(flags));
      strike();
      EXPECT_TRUE(subject_->serves(*bench_)) << index;
    }
  }
}

TEST_P(HostileQueue, SameHeadTwiceHarmsNobody) {
  for (const uint16_t flags : {uint16_t{0}, kDescriptorWrite}) {
    bench_->start();
    queue().setDescriptor(0, {queue().allocate(64), 64, flags, 0});
    for (int i = 0; i < Bench::kRingSize; ++i) queue().makeAvailable(0);
    strike();
    expectRecovers();
  }
}

// A guest that adds while the device works: each turn ends after one queue's worth.
TEST_P(HostileQueue, BuffersWithoutEndDoNotHoldTheDevice) {
  for (const uint16_t flags : {uint16_t{0}, kDescriptorWrite}) {
    bench_->start();
    queue().setDescriptor(0, {queue().allocate(64), 64, flags, 0});
    for (int i = 0; i < Bench::kRingSize; ++i) queue().makeAvailable(0);
    const QueueLayout rings = queue().layout();
    GuestMemory& memory = bench_->memory();
    std::atomic<bool> over = false;
    std::thread guest([&] {
      while (!over) {
        const auto used = memory.loadAcquire(rings.used + 2);
        [[maybe_unused]] const bool done = memory.storeRelease(
            rings.available + 2, static_cast<uint16_t>(*used + Bench::kRingSize));
      }
    });
    for (int i = 0; i < 50; ++i) {
      const auto before = *memory.loadAcquire(rings.used + 2);
      bench_->transport().onNotify();
      const auto after = *memory.loadAcquire(rings.used + 2);
      EXPECT_LE(static_cast<uint16_t>(after - before), Bench::kRingSize);
      subject_->stir();
    }
    over = true;
    guest.join();
    expectRecovers();
  }
}

}  // namespace
}  // namespace hull::vmm::virtio::hostile
