#include "vmm/virtio/queue/queue.h"

#include <gtest/gtest.h>

#include "vmm/memory/layout.h"
#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::kTestMemoryBytes;

constexpr uint16_t kSize = 8;

class QueueTest : public ::testing::Test {
 protected:
  // Expects that the queue refuses what the driver has made available, for good.
  void expectBroken(Queue& queue) {
    EXPECT_FALSE(queue.pop());
    EXPECT_TRUE(queue.broken());
    EXPECT_FALSE(queue.pop());
    EXPECT_EQ(queue.available(), 0);
    EXPECT_FALSE(queue.enableNotifications());
    EXPECT_FALSE(queue.takeInterrupt());
    EXPECT_EQ(driver_.usedIndex(), 0);
  }
  void expectBroken() {
    Queue queue = driver_.queue();
    expectBroken(queue);
  }

  GuestMemory memory_{kTestMemoryBytes};
  FakeDriver driver_{memory_, kSize};
};

TEST_F(QueueTest, EmptyQueueGivesNothing) {
  Queue queue = driver_.queue();
  EXPECT_FALSE(queue.pop());
  EXPECT_FALSE(queue.broken());
}

TEST_F(QueueTest, ChainIsReadWrittenAndReturned) {
  GuestAddress answer = 0;
  const uint16_t head =
      ChainBuilder(driver_).readable("hel").readable("lo").writable(3, &answer).writable(8).send();
  Queue queue = driver_.queue();
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readableBytes(), 5u);
  EXPECT_EQ(chain->writableBytes(), 11u);
  std::array<char, 4> text{};
  EXPECT_TRUE(chain->read(1, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(std::string_view(text.data(), 4), "ello");
  EXPECT_FALSE(chain->read(2, std::as_writable_bytes(std::span(text))));
  EXPECT_FALSE(chain->read(UINT64_MAX, std::as_writable_bytes(std::span(text))));
  EXPECT_TRUE(chain->write(0, std::as_bytes(std::span("abc", 3))));
  EXPECT_FALSE(chain->write(10, std::as_bytes(std::span("abc", 3))));
  queue.push(std::move(*chain), 3);
  EXPECT_EQ(driver_.usedIndex(), 1);
  EXPECT_EQ(driver_.used(0).id, head);
  EXPECT_EQ(driver_.used(0).length, 3u);
  EXPECT_EQ(driver_.text(answer, 3), "abc");
}

TEST_F(QueueTest, HeaderSplitIntoSingleBytesIsReadWhole) {
  ChainBuilder builder(driver_);
  for (const char c : std::string("12345678")) builder.readable(std::string_view(&c, 1));
  builder.send();
  Queue queue = driver_.queue();
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readAs<uint64_t>(0), 0x3837363534333231u);
  queue.drop(std::move(*chain));
}

TEST_F(QueueTest, IndirectChain) {
  ChainBuilder(driver_).readable("ask").writable(4).sendIndirect();
  Queue queue = driver_.queue();
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readableBytes(), 3u);
  EXPECT_EQ(chain->writableBytes(), 4u);
  queue.push(std::move(*chain), 0);
}

TEST_F(QueueTest, UnpoppedChainComesAgain) {
  ChainBuilder(driver_).readable("a").send();
  ChainBuilder(driver_).readable("bc").send();
  Queue queue = driver_.queue();
  auto first = queue.pop();
  auto second = queue.pop();
  ASSERT_TRUE(first && second);
  queue.unpop(std::move(*second));
  queue.unpop(std::move(*first));
  EXPECT_EQ(queue.available(), 2);
  first = queue.pop();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->readableBytes(), 1u);
  queue.drop(std::move(*first));
}

TEST_F(QueueTest, IndexWrapsAround) {
  Queue queue = driver_.queue();
  queue.setPosition({65534, 65534});
  driver_.setAvailableIndex(65534);
  for (int i = 0; i < 4; ++i) {
    ChainBuilder(driver_).readable("x").send();
    auto chain = queue.pop();
    ASSERT_TRUE(chain);
    queue.push(std::move(*chain), 0);
  }
  EXPECT_EQ(driver_.usedIndex(), 2);
  EXPECT_EQ(queue.position().next_available, 2);
}

TEST_F(QueueTest, ZeroLengthBuffersAreSkipped) {
  ChainBuilder(driver_).raw({UINT64_MAX, 0, 0, 0}).readable("x").send();
  Queue queue = driver_.queue();
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable().size(), 1u);
  queue.drop(std::move(*chain));
}

// ---- layout (virtio 1.2 §2.7: sizes, alignment) -------------------------------------------------

TEST_F(QueueTest, BadLayoutsAreRefused) {
  const auto refused = [&](auto change) {
    QueueLayout layout = driver_.layout();
    change(layout);
    return !Queue::create(memory_, layout, kSize, false, false).has_value();
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& l) { l.size = 0; }));
  EXPECT_TRUE(refused([](auto& l) { l.size = 3; }));
  EXPECT_TRUE(refused([](auto& l) { l.size = kSize * 2; }));
  EXPECT_TRUE(refused([](auto& l) { l.descriptors += 8; }));
  EXPECT_TRUE(refused([](auto& l) { l.available += 1; }));
  EXPECT_TRUE(refused([](auto& l) { l.used += 2; }));
  EXPECT_TRUE(refused([](auto& l) { l.descriptors = layout::kVirtioBase; }));
  EXPECT_TRUE(refused([](auto& l) { l.available = kTestMemoryBytes - 4; }));
  EXPECT_TRUE(refused([](auto& l) { l.used = kTestMemoryBytes; }));
  EXPECT_TRUE(refused([](auto& l) { l.used = ~uint64_t{3}; }));
  EXPECT_TRUE(refused([](auto& l) { l.descriptors = ~uint64_t{15}; }));
}

// ---- hostile chains (§2.7.4.2, §2.7.5.3) --------------------------------------------------------

TEST_F(QueueTest, SelfLoopBreaks) {
  driver_.setDescriptor(0, {0x1000, 4, kDescriptorNext, 0});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, LoopOfTwoBreaks) {
  driver_.setDescriptor(0, {0x1000, 4, kDescriptorNext, 1});
  driver_.setDescriptor(1, {0x1000, 4, kDescriptorNext, 0});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, LoopOfEmptyBuffersBreaks) {
  driver_.setDescriptor(0, {0, 0, kDescriptorNext, 0});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, NextOutsideOfTheTableBreaks) {
  driver_.setDescriptor(0, {0x1000, 4, kDescriptorNext, kSize});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, HeadOutsideOfTheTableBreaks) {
  driver_.makeAvailable(kSize);
  expectBroken();
}

TEST_F(QueueTest, ReadableAfterWritableBreaks) {
  ChainBuilder(driver_).writable(4).readable("x").send();
  expectBroken();
}

TEST_F(QueueTest, BuffersOutsideOfMemoryBreak) {
  const Descriptor bad[] = {
      {UINT64_MAX - 1, 4, 0, 0},                      // wraps
      {kTestMemoryBytes - 2, 4, 0, 0},                // ends behind memory
      {kTestMemoryBytes, 1, 0, 0},                    // past memory
      {layout::kVirtioBase, 4, kDescriptorWrite, 0},  // our own registers
      {0, UINT32_MAX, 0, 0},                          // far too long
  };
  for (const Descriptor& descriptor : bad) {
    FakeDriver driver(memory_, kSize);
    driver.setDescriptor(0, descriptor);
    driver.setAvailableIndex(0);
    driver.makeAvailable(0);
    Queue queue = driver.queue();
    EXPECT_FALSE(queue.pop());
    EXPECT_TRUE(queue.broken());
  }
}

TEST(QueueOnBigMemory, BufferAcrossTheDeviceHoleBreaks) {
  GuestMemory memory(layout::kGapStart + layout::kMiB);
  FakeDriver driver(memory, kSize);
  driver.setDescriptor(0, {layout::kGapStart - 8, 16, 0, 0});
  driver.makeAvailable(0);
  Queue queue = driver.queue();
  EXPECT_FALSE(queue.pop());
  EXPECT_TRUE(queue.broken());
}

TEST(QueueOnBigMemory, ChainBeyondFourGibBreaks) {
  GuestMemory memory(layout::kGapStart);
  FakeDriver driver(memory, kSize);
  ChainBuilder(driver)
      .raw({layout::kGiB, 0x7fffffff, 0, 0})
      .raw({layout::kGiB, 0x7fffffff, 0, 0})
      .raw({layout::kGiB, 3, kDescriptorWrite, 0})
      .send();
  Queue queue = driver.queue();
  EXPECT_FALSE(queue.pop());
  EXPECT_TRUE(queue.broken());
}

TEST_F(QueueTest, NestedIndirectBreaks) {
  const Descriptor inner{0x1000, 16, kDescriptorIndirect, 0};
  const GuestAddress table = driver_.allocate(std::as_bytes(std::span(&inner, 1)));
  driver_.setDescriptor(0, {table, 16, kDescriptorIndirect, 0});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, IndirectWithNextBreaks) {
  driver_.setDescriptor(0, {0x1000, 16, kDescriptorIndirect | kDescriptorNext, 1});
  driver_.makeAvailable(0);
  expectBroken();
}

TEST_F(QueueTest, IndirectWithoutTheFeatureBreaks) {
  ChainBuilder(driver_).readable("x").sendIndirect();
  Queue queue = driver_.queue(false, false);
  expectBroken(queue);
}

TEST_F(QueueTest, IndirectTablesOfBadLengthBreak) {
  for (const uint32_t length : {0u, 1u, 15u, 17u, UINT32_MAX, 32769u * 16}) {
    FakeDriver driver(memory_, kSize);
    driver.setDescriptor(0, {0x20000, length, kDescriptorIndirect, 0});
    driver.setAvailableIndex(0);
    driver.makeAvailable(0);
    Queue queue = driver.queue();
    EXPECT_FALSE(queue.pop()) << length;
    EXPECT_TRUE(queue.broken()) << length;
  }
}

TEST_F(QueueTest, IndirectChainLongerThanTheQueueBreaks) {
  ChainBuilder builder(driver_);
  for (int i = 0; i < kSize + 1; ++i) builder.readable("x");
  builder.sendIndirect();
  expectBroken();
}

TEST_F(QueueTest, IndirectLoopBreaks) {
  const Descriptor loop{0x1000, 1, kDescriptorNext, 0};
  const GuestAddress table = driver_.allocate(std::as_bytes(std::span(&loop, 1)));
  driver_.setDescriptor(0, {table, 16, kDescriptorIndirect, 0});
  driver_.makeAvailable(0);
  expectBroken();
}

// ---- hostile rings ------------------------------------------------------------------------------

TEST_F(QueueTest, AvailableIndexJumpingAheadBreaks) {
  driver_.setAvailableIndex(kSize + 1);
  expectBroken();
}

TEST_F(QueueTest, AvailableIndexGoingBackBreaks) {
  driver_.setAvailableIndex(UINT16_MAX);
  expectBroken();
}

TEST_F(QueueTest, SameHeadTwiceInFlightBreaks) {
  driver_.setDescriptor(0, {0x1000, 4, 0, 0});
  driver_.makeAvailable(0);
  driver_.makeAvailable(0);
  Queue queue = driver_.queue();
  auto chain = queue.pop();
  ASSERT_TRUE(chain);
  EXPECT_FALSE(queue.pop());
  EXPECT_TRUE(queue.broken());
  queue.drop(std::move(*chain));
}

TEST_F(QueueTest, SameHeadAgainAfterReturnIsFine) {
  driver_.setDescriptor(0, {0x1000, 4, 0, 0});
  Queue queue = driver_.queue();
  for (int i = 0; i < 3; ++i) {
    driver_.makeAvailable(0);
    auto chain = queue.pop();
    ASSERT_TRUE(chain);
    queue.push(std::move(*chain), 0);
  }
  EXPECT_EQ(driver_.usedIndex(), 3);
}

TEST_F(QueueTest, ScribbledUsedRingDoesNotMatter) {
  Queue queue = driver_.queue();
  for (uint16_t i = 0; i < 3; ++i) {
    ChainBuilder(driver_).readable("x").send();
    driver_.put<uint32_t>(driver_.layout().used, 0xffffffff);
    auto chain = queue.pop();
    ASSERT_TRUE(chain);
    queue.push(std::move(*chain), 0);
    EXPECT_EQ(driver_.usedIndex(), i + 1);
  }
}

TEST_F(QueueTest, DrainStopsAtTheSizeOfTheQueue) {
  driver_.setDescriptor(0, {0x1000, 4, 0, 0});
  driver_.makeAvailable(0);
  Queue queue = driver_.queue();
  int handled = 0;
  // A guest that adds a request for each one that is handled.
  const DrainResult result = drain(queue, [&](Chain&& chain) {
    ++handled;
    queue.push(std::move(chain), 0);
    driver_.makeAvailable(0);
    return true;
  });
  EXPECT_EQ(result, DrainResult::kMore);
  EXPECT_EQ(handled, kSize);
}

// ---- notifications (§2.7.7, §2.7.10) ------------------------------------------------------------

TEST_F(QueueTest, InterruptUnlessTheDriverSaysNo) {
  Queue queue = driver_.queue();
  const auto serve = [&] {
    ChainBuilder(driver_).readable("x").send();
    auto chain = queue.pop();
    queue.push(std::move(*chain), 0);
  };
  EXPECT_FALSE(queue.takeInterrupt());
  serve();
  EXPECT_TRUE(queue.takeInterrupt());
  EXPECT_FALSE(queue.takeInterrupt());
  driver_.setAvailableFlags(1);
  serve();
  EXPECT_FALSE(queue.takeInterrupt());
}

TEST_F(QueueTest, EventIndexChoosesTheInterrupt) {
  Queue queue = driver_.queue(true);
  const auto serve = [&] {
    ChainBuilder(driver_).readable("x").send();
    auto chain = queue.pop();
    queue.push(std::move(*chain), 0);
  };
  serve();
  EXPECT_TRUE(queue.takeInterrupt());
  driver_.setUsedEvent(3);  // only when entry 3 is used
  serve();
  EXPECT_FALSE(queue.takeInterrupt());
  serve();
  EXPECT_FALSE(queue.takeInterrupt());
  serve();
  EXPECT_TRUE(queue.takeInterrupt());
  driver_.setUsedEvent(UINT16_MAX);
  serve();
  EXPECT_FALSE(queue.takeInterrupt());
}

TEST_F(QueueTest, NotificationsFlag) {
  Queue queue = driver_.queue();
  queue.disableNotifications();
  EXPECT_EQ(driver_.usedFlags(), 1);
  EXPECT_FALSE(queue.enableNotifications());
  EXPECT_EQ(driver_.usedFlags(), 0);
  ChainBuilder(driver_).readable("x").send();
  EXPECT_TRUE(queue.enableNotifications());
  EXPECT_FALSE(queue.enableNotifications(1));
}

TEST_F(QueueTest, NotificationsByEventIndex) {
  Queue queue = driver_.queue(true);
  ChainBuilder(driver_).readable("x").send();
  EXPECT_FALSE(queue.enableNotifications(1));
  EXPECT_EQ(driver_.availableEvent(), 1);
  EXPECT_TRUE(queue.enableNotifications());
  EXPECT_EQ(driver_.availableEvent(), 0);
}

}  // namespace
}  // namespace hull::vmm::virtio
