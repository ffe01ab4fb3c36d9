#include "vmm/virtio/console/console.h"

#include <gtest/gtest.h>

#include "base/fd.h"
#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

class ConsoleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<Queue> queues;
    queues.push_back(receive_.queue());
    queues.push_back(transmit_.queue());
    device_.activate({memory_, host_, 0, std::move(queues)});
  }
  std::string output() const {
    std::string text(fileSize(file_.get()), '\0');
    preadFull(file_.get(), std::as_writable_bytes(std::span(text)), 0);
    return text;
  }
  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver receive_{memory_, 16, 0x10000};
  FakeDriver transmit_{memory_, 16, 0x200000};
  FakeHost host_;
  Fd file_ = makeMemfd("console");
  ConsoleDevice device_{file_.get()};
};

TEST_F(ConsoleTest, WritesWhatTheGuestSays) {
  ChainBuilder(transmit_).readable("a").readable("bc").send();
  ChainBuilder(transmit_).readable("d").send();
  device_.notify();
  EXPECT_EQ(output(), "abcd");
  EXPECT_EQ(transmit_.usedIndex(), 2);
}

TEST_F(ConsoleTest, LeavesInputBuffersAlone) {
  ChainBuilder(receive_).writable(64).send();
  device_.notify();
  EXPECT_EQ(receive_.usedIndex(), 0);
}

// Hostile grid: output without end is bounded per request, in rate and in total, and never waits.
TEST_F(ConsoleTest, FloodIsBounded) {
  const GuestAddress buffer = transmit_.allocate(1 << 20);
  for (int i = 0; i < 64; ++i) {
    ChainBuilder(transmit_).raw({buffer, 1 << 20, 0, 0}).raw({buffer, 1 << 20, 0, 0}).send();
    device_.notify();
    ASSERT_EQ(transmit_.usedIndex(), i + 1);
    if (i == 0) {
      ASSERT_EQ(fileSize(file_.get()), ConsoleDevice::kMaxRequestBytes);
    }
  }
  EXPECT_GE(fileSize(file_.get()), BoundedOutput::kBurstBytes);
  EXPECT_LT(fileSize(file_.get()), 64 * ConsoleDevice::kMaxRequestBytes);
  EXPECT_FALSE(host_.reset_reason);
}

}  // namespace
}  // namespace hull::vmm::virtio
