#include "vmm/virtio/block/block.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/block/thread_engine.h"
#include "vmm/virtio/block/uring_engine.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

constexpr uint16_t kSize = 16;
constexpr uint64_t kDiskBytes = 16 * 512;

std::unique_ptr<IoEngine> engineNamed(const std::string& name, EventLoop& loop) {
  if (name == "threads") return std::make_unique<ThreadEngine>(loop);
  try {
    return std::make_unique<UringEngine>(loop);
  } catch (const Error&) {
    return nullptr;
  }
}

// Sectors 0–3 in one file, 4–7 nowhere, 8–15 in another from its sector 1 on. Once with each kind
// of engine.
class BlockTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    engine_ = engineNamed(GetParam(), loop_);
    if (!engine_) GTEST_SKIP() << "no io_uring here";
    engine_->start(std::nullopt);
  }
  // Read-only disks have descriptors that cannot write.
  int give(const Fd& file, bool read_only) {
    if (!read_only) return file.get();
    given_.push_back(openFile("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY));
    return given_.back().get();
  }
  void start(bool read_only, uint32_t queues = 1) {
    for (int i = 0; i < 4; ++i) front_text_ += std::string(512, static_cast<char>('a' + i));
    back_text_ = std::string(512, '-');
    for (int i = 0; i < 8; ++i) back_text_ += std::string(512, static_cast<char>('A' + i));
    writeFull(front_.get(), front_text_);
    writeFull(back_.get(), back_text_);
    device_.emplace(DiskConfig{"disk-7",
                               kDiskBytes,
                               read_only,
                               {{give(front_, read_only), 0, 0, 2048},
                                {give(back_, read_only), 512, 4096, 4096}}},
                    queues, *engine_, loop_);
    std::vector<Queue> rings;
    rings.push_back(driver_.queue());
    if (queues > 1) rings.push_back(second_driver_.queue());
    device_->activate({memory_, host_, 0, std::move(rings)});
  }
  static virtio_blk_outhdr header(uint32_t type, uint64_t sector) {
    virtio_blk_outhdr result{};
    result.type = type;
    result.sector = sector;
    return result;
  }
  // The status of a request already sent, whose status byte is at `status`.
  uint8_t finish(GuestAddress status) {
    driver_.put<uint8_t>(status, 0xee);
    serve();
    return driver_.get<uint8_t>(status);
  }
  void serve() {
    device_->notify();
    engine_->drain();
  }
  uint8_t read(uint64_t sector, uint32_t bytes, std::string* text = nullptr) {
    GuestAddress data = 0, status = 0;
    ChainBuilder(driver_)
        .readableValue(header(VIRTIO_BLK_T_IN, sector))
        .writable(bytes, &data)
        .writable(1, &status)
        .send();
    const uint8_t result = finish(status);
    if (text != nullptr) *text = driver_.text(data, bytes);
    return result;
  }
  uint8_t write(uint64_t sector, const std::string& text) {
    GuestAddress status = 0;
    ChainBuilder(driver_)
        .readableValue(header(VIRTIO_BLK_T_OUT, sector))
        .readable(text)
        .writable(1, &status)
        .send();
    return finish(status);
  }
  uint8_t simple(uint32_t type) {
    GuestAddress status = 0;
    ChainBuilder(driver_).readableValue(header(type, 0)).writable(1, &status).send();
    return finish(status);
  }
  uint8_t trim(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags = 0) {
    GuestAddress status = 0;
    const virtio_blk_discard_write_zeroes range{sector, sectors, flags};
    ChainBuilder(driver_)
        .readableValue(header(type, 0))
        .readableValue(range)
        .writable(1, &status)
        .send();
    return finish(status);
  }
  std::string fileText(const Fd& file) {
    std::string text(fileSize(file.get()), '\0');
    preadFull(file.get(), std::as_writable_bytes(std::span(text)), 0);
    return text;
  }

  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver driver_{memory_, kSize};
  FakeDriver second_driver_{memory_, kSize, 0x200000};
  FakeHost host_;
  EventLoop loop_;
  std::unique_ptr<IoEngine> engine_;
  std::vector<Fd> given_;
  Fd front_ = makeMemfd("front"), back_ = makeMemfd("back");
  std::string front_text_, back_text_;
  std::optional<BlockDevice> device_;
};

TEST_P(BlockTest, ReadsAcrossSegmentsAndTheGap) {
  start(true);
  std::string text;
  ASSERT_EQ(read(0, kDiskBytes, &text), VIRTIO_BLK_S_OK);
  EXPECT_EQ(text, front_text_ + std::string(2048, '\0') + back_text_.substr(512));
  EXPECT_EQ(driver_.used(0).length, kDiskBytes + 1);
  ASSERT_EQ(read(3, 1024, &text), VIRTIO_BLK_S_OK);
  EXPECT_EQ(text, std::string(512, 'd') + std::string(512, '\0'));
  EXPECT_GT(host_.interrupts, 0);
}

TEST_P(BlockTest, HeaderAndStatusMayBeSplitAnywhere) {
  start(true);
  const auto head = header(VIRTIO_BLK_T_IN, 1);
  const std::string_view bytes(reinterpret_cast<const char*>(&head), sizeof head);
  GuestAddress data = 0, rest = 0;
  ChainBuilder(driver_)
      .readable(bytes.substr(0, 1))
      .readable(bytes.substr(1, 9))
      .readable(bytes.substr(10))
      .writable(100, &data)
      .writable(413, &rest)
      .send();
  serve();
  EXPECT_EQ(driver_.text(data, 100), std::string(100, 'b'));
  EXPECT_EQ(driver_.get<uint8_t>(rest + 412), VIRTIO_BLK_S_OK);
}

// virtio 1.2 §5.2.6.1: the device must not touch sectors behind the end, whatever the arithmetic.
TEST_P(BlockTest, SectorsOutsideOfTheDiskFail) {
  start(false);
  EXPECT_EQ(read(16, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(15, 1024), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(UINT64_MAX / 512, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(uint64_t{1} << 55, 512), VIRTIO_BLK_S_IOERR);  // × 512 = 2^64
  EXPECT_EQ(write(UINT64_MAX / 512 + 1, std::string(512, 'x')), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(0, 100), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(fileText(front_), front_text_);
  EXPECT_FALSE(host_.reset_reason);
}

TEST_P(BlockTest, WritesGoToTheirSegmentOnly) {
  start(false);
  EXPECT_EQ(write(2, std::string(512, 'x')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(write(8, std::string(512, 'y')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(write(5, std::string(512, 'z')), VIRTIO_BLK_S_IOERR);  // the gap
  front_text_.replace(1024, 512, std::string(512, 'x'));
  back_text_.replace(512, 512, std::string(512, 'y'));
  EXPECT_EQ(fileText(front_), front_text_);
  EXPECT_EQ(fileText(back_), back_text_);
  EXPECT_EQ(simple(VIRTIO_BLK_T_FLUSH), VIRTIO_BLK_S_OK);
}

TEST_P(BlockTest, ReadOnlyDiskRefusesAllThatWrites) {
  start(true);
  EXPECT_EQ(device_->features() & (1u << VIRTIO_BLK_F_RO), 1u << VIRTIO_BLK_F_RO);
  EXPECT_EQ(device_->features() & (1u << VIRTIO_BLK_F_DISCARD), 0u);
  EXPECT_EQ(write(0, std::string(512, 'x')), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, 0, 1), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(trim(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(fileText(front_), front_text_);
}

TEST_P(BlockTest, DiscardAndWriteZeroes) {
  start(false);
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, 0, 1), VIRTIO_BLK_S_OK);
  EXPECT_EQ(trim(VIRTIO_BLK_T_WRITE_ZEROES, 1, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
            VIRTIO_BLK_S_OK);
  EXPECT_EQ(fileText(front_).substr(0, 1024), std::string(1024, '\0'));
  EXPECT_EQ(fileText(front_).substr(1024), front_text_.substr(1024));
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, 15, 2), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, UINT64_MAX, UINT32_MAX), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(trim(VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(trim(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
}

TEST_P(BlockTest, GivesItsId) {
  start(true);
  GuestAddress id = 0, status = 0;
  ChainBuilder(driver_)
      .readableValue(header(VIRTIO_BLK_T_GET_ID, 0))
      .writable(20, &id)
      .writable(1, &status)
      .send();
  EXPECT_EQ(finish(status), VIRTIO_BLK_S_OK);
  EXPECT_EQ(driver_.text(id, 20), std::string("disk-7") + std::string(14, '\0'));
}

TEST_P(BlockTest, UnknownRequestsAreUnsupported) {
  start(false);
  EXPECT_EQ(simple(2), VIRTIO_BLK_S_UNSUPP);  // SCSI commands, legacy
  EXPECT_EQ(simple(0xffffffff), VIRTIO_BLK_S_UNSUPP);
}

TEST_P(BlockTest, ShortHeaderFails) {
  start(false);
  GuestAddress status = 0;
  ChainBuilder(driver_).readable("short").writable(1, &status).send();
  EXPECT_EQ(finish(status), VIRTIO_BLK_S_IOERR);
  GuestAddress lonely = 0;
  ChainBuilder(driver_).writable(1, &lonely).send();
  EXPECT_EQ(finish(lonely), VIRTIO_BLK_S_IOERR);
}

TEST_P(BlockTest, RequestWithoutStatusNeedsReset) {
  start(false);
  ChainBuilder(driver_).readableValue(header(VIRTIO_BLK_T_IN, 0)).send();
  serve();
  EXPECT_TRUE(host_.reset_reason);
}

TEST_P(BlockTest, BrokenRingNeedsReset) {
  start(false);
  driver_.setAvailableIndex(kSize + 1);
  device_->notify();
  EXPECT_TRUE(host_.reset_reason);
  device_->reset();
  device_->notify();
}

TEST_P(BlockTest, TruncatedFileIsAnErrorNotZeros) {
  start(true);
  ASSERT_EQ(ftruncate(back_.get(), 1024), 0);
  EXPECT_EQ(read(8, 512), VIRTIO_BLK_S_OK);
  EXPECT_EQ(read(9, 512), VIRTIO_BLK_S_IOERR);
}

TEST_P(BlockTest, DescriptorsMustFitTheDisk) {
  const auto disk = [](const Fd& file, bool read_only) {
    return DiskConfig{"d", 512, read_only, {{file.get(), 0, 0, 512}}};
  };
  const Fd read_only = openFile("/proc/self/fd/" + std::to_string(front_.get()), O_RDONLY);
  EXPECT_THROW(BlockDevice(disk(front_, true), 1, *engine_, loop_), Error);
  EXPECT_THROW(BlockDevice(disk(read_only, false), 1, *engine_, loop_), Error);
  EXPECT_NO_THROW(BlockDevice(disk(read_only, true), 1, *engine_, loop_));
}

TEST_P(BlockTest, QueuesAsManyAsCpusUpToALimit) {
  const DiskConfig disk{"d", 512, false, {{front_.get(), 0, 0, 512}}};
  const BlockDevice one(disk, 1, *engine_, loop_), two(disk, 2, *engine_, loop_),
      many(disk, 64, *engine_, loop_);
  EXPECT_EQ(one.queueSizes().size(), 1u);
  EXPECT_EQ(one.features() & (1u << VIRTIO_BLK_F_MQ), 0u);
  EXPECT_EQ(two.queueSizes().size(), 2u);
  EXPECT_NE(two.features() & (1u << VIRTIO_BLK_F_MQ), 0u);
  EXPECT_EQ(many.queueSizes().size(), BlockDevice::kMaxQueues);
  EXPECT_EQ(many.requiredQueues(), 1u);
}

TEST_P(BlockTest, EachQueueGetsItsOwnAnswers) {
  start(false, 2);
  GuestAddress data = 0, status = 0;
  ChainBuilder(second_driver_)
      .readableValue(header(VIRTIO_BLK_T_IN, 1))
      .writable(512, &data)
      .writable(1, &status)
      .send();
  EXPECT_EQ(write(0, std::string(512, 'x')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(driver_.usedIndex(), 1);
  EXPECT_EQ(second_driver_.usedIndex(), 1);
  EXPECT_EQ(second_driver_.get<uint8_t>(status), VIRTIO_BLK_S_OK);
  EXPECT_EQ(second_driver_.text(data, 512), std::string(512, 'b'));
  EXPECT_EQ(device_->queuePositions().size(), 2u);
}

// More than a ring holds, a reset in the middle: nothing of the old driver is touched afterwards.
TEST_P(BlockTest, ResetWaitsForWhatIsUnderWay) {
  start(false);
  std::vector<GuestAddress> data(kSize / 4);
  for (GuestAddress& where : data) {
    ChainBuilder(driver_)
        .readableValue(header(VIRTIO_BLK_T_IN, 0))
        .writable(1024, &where)
        .writable(512)
        .writable(1)
        .send();
  }
  device_->notify();
  device_->reset();
  for (const GuestAddress where : data) {
    EXPECT_EQ(driver_.text(where, 1024), front_text_.substr(0, 1024));
  }
  driver_.put<uint8_t>(data[0], 0x5a);
  serve();
  EXPECT_EQ(driver_.get<uint8_t>(data[0]), 0x5a);
}

// A limit that nothing refills within a test's life: one request passes, the rest wait for it to
// go.
TEST_P(BlockTest, DirectionOverItsLimitWaitsAndTheOtherPasses) {
  start(false);
  device_->setLimits({{1, 1}, {}}, {});
  EXPECT_EQ(read(0, 512), VIRTIO_BLK_S_OK);  // leaves a debt of 511 seconds
  EXPECT_EQ(read(0, 512), 0xee);
  EXPECT_EQ(read(1, 512), 0xee);
  EXPECT_EQ(write(0, std::string(512, 'x')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(simple(VIRTIO_BLK_T_FLUSH), VIRTIO_BLK_S_OK);
  EXPECT_EQ(driver_.usedIndex(), 3);
  device_->setLimits({}, {});  // changed while they wait
  engine_->drain();
  EXPECT_EQ(driver_.usedIndex(), 5);
}

TEST_P(BlockTest, TimerLetsParkedRequestsGo) {
  start(false);
  device_->setLimits({{}, {1000, 1}}, {});
  EXPECT_EQ(read(0, 512), VIRTIO_BLK_S_OK);
  for (int i = 0; i < 3; ++i) read(0, 512);
  while (driver_.usedIndex() < 4) loop_.runOnce(std::chrono::milliseconds(100));
  EXPECT_FALSE(host_.reset_reason);
}

TEST_P(BlockTest, ParkedRequestsEndWithTheDevice) {
  start(false);
  device_->setLimits({{1, 1}, {}}, {});
  read(0, 512);
  read(0, 512);
  device_->quiesce();
  EXPECT_EQ(driver_.usedIndex(), 2);  // a snapshot waits for no limit
  read(0, 512);
  device_->reset();
  EXPECT_EQ(driver_.usedIndex(), 2);
}

INSTANTIATE_TEST_SUITE_P(Engines, BlockTest, ::testing::Values("io_uring", "threads"),
                         [](const auto& each) { return each.param; });

}  // namespace
}  // namespace hull::vmm::virtio
