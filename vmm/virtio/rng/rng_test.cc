#include "vmm/virtio/rng/rng.h"

#include <gtest/gtest.h>

#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

class RngTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<Queue> queues;
    queues.push_back(driver_.queue());
    device_.activate({memory_, host_, 0, std::move(queues)});
  }
  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver driver_{memory_, 16};
  FakeHost host_;
  RngDevice device_;
};

TEST_F(RngTest, FillsBuffersSplitAnywhere) {
  GuestAddress first = 0, second = 0;
  ChainBuilder(driver_).writable(1, &first).writable(63, &second).send();
  device_.notify();
  EXPECT_EQ(driver_.used(0).length, 64u);
  EXPECT_NE(driver_.text(second, 63), std::string(63, '\0'));
  EXPECT_EQ(driver_.text(second + 63, 1), std::string(1, '\0'));  // and not a byte more
  EXPECT_GT(host_.interrupts, 0);
}

// Hostile grid: many descriptors on one buffer make the host work for memory the guest never gave.
TEST_F(RngTest, ManyDescriptorsOnOneBufferGetNoMoreThanTheLimit) {
  constexpr uint32_t kBytes = 1 << 20;
  const GuestAddress buffer = driver_.allocate(kBytes);
  ChainBuilder builder(driver_);
  for (int i = 0; i < 15; ++i) builder.raw({buffer, kBytes, kDescriptorWrite, 0});
  builder.send();
  device_.notify();
  EXPECT_EQ(driver_.used(0).length, RngDevice::kMaxRequestBytes);
  EXPECT_EQ(driver_.text(buffer + RngDevice::kMaxRequestBytes, 64), std::string(64, '\0'));
}

TEST_F(RngTest, ReadableBuffersGetNothing) {
  ChainBuilder(driver_).readable("seed").send();
  device_.notify();
  EXPECT_EQ(driver_.used(0).length, 0u);
  EXPECT_FALSE(host_.reset_reason);
}

}  // namespace
}  // namespace hull::vmm::virtio
