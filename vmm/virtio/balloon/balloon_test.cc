#include "vmm/virtio/balloon/balloon.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <array>

#include "base/fd.h"
#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

constexpr uint64_t kPage = BalloonDevice::kPageBytes;
constexpr GuestAddress kVictim = 0x300000;  // above all rings and buffers of the drivers
constexpr uint64_t kVictimBytes = 0x80000;

class BalloonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fill(kVictim, kVictimBytes);
    activate(3);
  }
  void activate(size_t queues) {
    std::vector<Queue> rings;
    for (size_t i = 0; i < queues; ++i) rings.push_back(drivers_[i].queue());
    device_.activate({memory_, host_, device_.features(), std::move(rings)});
  }
  void fill(GuestAddress at, uint64_t bytes) {
    drivers_[0].write(at, asBytes(std::string(bytes, 'x')));
  }
  // Whether the page is in the host's memory.
  bool resident(GuestAddress address) {
    unsigned char there = 0;
    const auto host = memory_.iovecOf(address, kPage);
    EXPECT_EQ(mincore(host->iov_base, kPage, &there), 0);
    return (there & 1) != 0;
  }
  void inflate(const std::vector<uint32_t>& pages) {
    ChainBuilder(drivers_[0]).readable(std::as_bytes(std::span(pages))).send();
    device_.notify();
  }
  void report(GuestAddress address, uint32_t bytes) {
    ChainBuilder(drivers_[2]).raw({address, bytes, kDescriptorWrite, 0}).send();
    device_.notify();
  }
  static uint32_t pageOf(GuestAddress address) { return static_cast<uint32_t>(address / kPage); }

  GuestMemory memory_{testing::kTestMemoryBytes};
  std::array<FakeDriver, 3> drivers_{FakeDriver(memory_, 16, 0x10000),
                                     FakeDriver(memory_, 16, 0x100000),
                                     FakeDriver(memory_, 16, 0x200000)};
  FakeHost host_;
  BalloonDevice device_;
};

TEST_F(BalloonTest, ReportedMemoryGoesBackToTheHost) {
  ASSERT_TRUE(resident(kVictim));
  report(kVictim, 16 * kPage);
  EXPECT_FALSE(resident(kVictim));
  EXPECT_FALSE(resident(kVictim + 15 * kPage));
  EXPECT_TRUE(resident(kVictim + 16 * kPage));
  EXPECT_EQ(device_.reportedBytes(), 16 * kPage);
  EXPECT_EQ(drivers_[2].usedIndex(), 1);
  EXPECT_EQ(drivers_[2].text(kVictim, 1), std::string(1, '\0'));
}

TEST_F(BalloonTest, PagesThatAreOnlyPartlyFreeStay) {
  report(kVictim + 1, 3 * kPage);
  EXPECT_TRUE(resident(kVictim));
  EXPECT_FALSE(resident(kVictim + kPage));
  EXPECT_FALSE(resident(kVictim + 2 * kPage));
  EXPECT_TRUE(resident(kVictim + 3 * kPage));
  report(kVictim + 8 * kPage + 1, kPage - 1);
  EXPECT_TRUE(resident(kVictim + 8 * kPage));
}

TEST_F(BalloonTest, InflatedPagesGoBackToTheHost) {
  const uint32_t first = pageOf(kVictim);
  inflate({first, first + 1, first + 2, first + 9, first + 5});
  for (const uint64_t i : {0, 1, 2, 5, 9}) EXPECT_FALSE(resident(kVictim + i * kPage)) << i;
  for (const uint64_t i : {3, 4, 6, 8, 10}) EXPECT_TRUE(resident(kVictim + i * kPage)) << i;
  ChainBuilder(drivers_[1]).readableValue(first).send();
  device_.notify();
  EXPECT_EQ(drivers_[1].usedIndex(), 1);
}

// The balloon lines of the hostile grid.
TEST_F(BalloonTest, NonsenseIsAnsweredAndHarmsNobody) {
  inflate({UINT32_MAX, UINT32_MAX - 1, 0x80000000, pageOf(testing::kTestMemoryBytes)});
  inflate({});
  EXPECT_FALSE(host_.reset_reason);
  ChainBuilder(drivers_[0])
      .raw({0x80000, 0x10000, 0, 0})  // page numbers from whatever lies there
      .send();
  device_.notify();
  EXPECT_FALSE(host_.reset_reason);
  EXPECT_EQ(drivers_[0].usedIndex(), 3);  // an empty chain is one as well
  // Outside of memory, and nearly 4 GiB long: not a buffer at all.
  report(kVictim, UINT32_MAX);
  EXPECT_TRUE(host_.reset_reason);
  EXPECT_TRUE(resident(kVictim));
}

TEST_F(BalloonTest, RequestsAreBounded) {
  std::vector<uint32_t> pages(BalloonDevice::kMaxPagesPerRequest, pageOf(kVictim));
  pages.push_back(pageOf(kVictim) + 1);
  inflate(pages);
  EXPECT_FALSE(resident(kVictim));
  EXPECT_TRUE(resident(kVictim + kPage));
}

TEST_F(BalloonTest, BogusActualIsOnlyANumber) {
  const uint32_t bogus = UINT32_MAX;
  device_.writeConfig(4, std::as_bytes(std::span(&bogus, 1)));
  EXPECT_EQ(device_.actual(), bogus);
  device_.writeConfig(0, std::as_bytes(std::span(&bogus, 1)));  // the target is the host's
  device_.writeConfig(UINT64_MAX, std::as_bytes(std::span(&bogus, 1)));
  device_.writeConfig(5, std::as_bytes(std::span(&bogus, 1)));
  EXPECT_EQ(device_.target(), 0u);
  std::array<std::byte, 8> space{};
  device_.readConfig(UINT64_MAX, space);
  EXPECT_EQ(space[0], std::byte{0});
}

TEST_F(BalloonTest, TargetIsAnnounced) {
  device_.setTarget(1000);
  EXPECT_EQ(host_.config_changes, 1);
  uint32_t pages = 0;
  device_.readConfig(0, std::as_writable_bytes(std::span(&pages, 1)));
  EXPECT_EQ(pages, 1000u);
  device_.reset();
  device_.setTarget(2000);  // nobody there to be told; it reads it when it starts
  EXPECT_EQ(host_.config_changes, 1);
}

TEST_F(BalloonTest, DriversWithoutReportingDo) {
  device_.reset();
  activate(2);
  inflate({pageOf(kVictim)});
  EXPECT_FALSE(resident(kVictim));
  EXPECT_EQ(device_.queuePositions().size(), 2u);
}

TEST_F(BalloonTest, StateSurvives) {
  device_.setTarget(77);
  ByteWriter out;
  device_.save(out);
  BalloonDevice other;
  ByteReader in(out.bytes());
  EXPECT_TRUE(other.load(in));
  EXPECT_EQ(other.target(), 77u);
  ByteReader cut(std::string_view(out.bytes()).substr(0, 7));
  EXPECT_FALSE(other.load(cut));
}

}  // namespace
}  // namespace hull::vmm::virtio
