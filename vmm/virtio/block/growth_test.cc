#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/block/thread_engine.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

constexpr uint64_t kFirstSectors = 8;
constexpr uint64_t kReadOnlyAt = 16, kWritableAt = 24, kEnd = 32;  // sectors; a gap from 8 to 16
constexpr uint64_t kPartBytes = 8 * 512;

// A writable disk of 8 sectors 'a' that grows by 8 read-only ones of 'r' and 8 writable ones of
// 'w'.
class GrowthTest : public ::testing::Test {
 protected:
  void SetUp() override {
    engine_.start(std::nullopt);
    fill(first_, 'a');
    fill(lower_, 'r');
    fill(upper_, 'w');
    device_.emplace(DiskConfig{"disk-7", kPartBytes, false, {{first_.get(), 0, 0, kPartBytes}}}, 1u,
                    engine_, loop_);
    std::vector<Queue> rings;
    rings.push_back(driver_.queue());
    device_->activate({memory_, host_, 0, std::move(rings)});
  }
  static void fill(const Fd& file, char letter) {
    writeFull(file.get(), std::string(kPartBytes, letter));
  }
  static std::string textOf(const Fd& file) {
    std::string text(fileSize(file.get()), '\0');
    preadFull(file.get(), std::as_writable_bytes(std::span(text)), 0);
    return text;
  }
  static Fd again(const Fd& file, int flags) {
    return openFile("/proc/self/fd/" + std::to_string(file.get()), flags);
  }
  static DiskGrowth growth(uint64_t sector, bool read_only) {
    return {"disk-7", kEnd * 512, read_only, {{0, 0, sector * 512, kPartBytes, read_only}}};
  }
  static std::vector<Fd> only(Fd file) {
    std::vector<Fd> files;
    files.push_back(std::move(file));
    return files;
  }
  void grow() {
    device_->grow(growth(kReadOnlyAt, true), only(again(lower_, O_RDONLY)));
    device_->grow(growth(kWritableAt, false), only(again(upper_, O_RDWR)));
  }
  uint64_t capacity() const {
    uint64_t sectors = 0;
    device_->readConfig(0, std::as_writable_bytes(std::span(&sectors, 1)));
    return sectors;
  }
  uint8_t finish(GuestAddress status) {
    driver_.put<uint8_t>(status, 0xee);
    device_->notify();
    engine_.drain();
    return driver_.get<uint8_t>(status);
  }
  static virtio_blk_outhdr header(uint32_t type, uint64_t sector) {
    virtio_blk_outhdr result{};
    result.type = type;
    result.sector = sector;
    return result;
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
  uint8_t write(uint64_t sector, uint32_t bytes) {
    GuestAddress status = 0;
    ChainBuilder(driver_)
        .readableValue(header(VIRTIO_BLK_T_OUT, sector))
        .readable(std::string(bytes, 'x'))
        .writable(1, &status)
        .send();
    return finish(status);
  }
  uint8_t trim(uint32_t type, uint64_t sector, uint32_t sectors) {
    GuestAddress status = 0;
    ChainBuilder(driver_)
        .readableValue(header(type, 0))
        .readableValue(virtio_blk_discard_write_zeroes{sector, sectors, 0})
        .writable(1, &status)
        .send();
    return finish(status);
  }
  uint8_t flush() {
    GuestAddress status = 0;
    ChainBuilder(driver_).readableValue(header(VIRTIO_BLK_T_FLUSH, 0)).writable(1, &status).send();
    return finish(status);
  }

  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver driver_{memory_, 16};
  FakeHost host_;
  EventLoop loop_;
  ThreadEngine engine_{loop_};
  Fd first_ = makeMemfd("first"), lower_ = makeMemfd("lower"), upper_ = makeMemfd("upper");
  std::optional<BlockDevice> device_;
};

TEST_F(GrowthTest, DriverIsToldAndReachesWhatIsNew) {
  EXPECT_EQ(capacity(), kFirstSectors);
  EXPECT_EQ(read(kReadOnlyAt, 512), VIRTIO_BLK_S_IOERR);  // before it is there
  grow();
  EXPECT_EQ(capacity(), kEnd);
  EXPECT_EQ(host_.config_changes, 1);  // the second growth added no size
  std::string text;
  ASSERT_EQ(read(kReadOnlyAt, kPartBytes, &text), VIRTIO_BLK_S_OK);
  EXPECT_EQ(text, std::string(kPartBytes, 'r'));
  ASSERT_EQ(read(kWritableAt - 1, 1024, &text), VIRTIO_BLK_S_OK);  // across the border
  EXPECT_EQ(text, std::string(512, 'r') + std::string(512, 'w'));
  ASSERT_EQ(write(kWritableAt, 512), VIRTIO_BLK_S_OK);
  EXPECT_EQ(textOf(upper_).substr(0, 513), std::string(512, 'x') + "w");
  EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
}

TEST_F(GrowthTest, NothingWritesToReadOnlySegments) {
  grow();
  EXPECT_EQ(write(kReadOnlyAt, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(write(kWritableAt - 1, 1024), VIRTIO_BLK_S_IOERR);  // nor to the part that could
  for (const uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES}) {
    EXPECT_EQ(trim(type, kReadOnlyAt, 1), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(trim(type, kWritableAt - 1, 2), VIRTIO_BLK_S_IOERR);
  }
  EXPECT_EQ(textOf(lower_), std::string(kPartBytes, 'r'));
  EXPECT_EQ(textOf(upper_), std::string(kPartBytes, 'w'));
}

TEST_F(GrowthTest, HolesAndWhatIsBeyondTheEndAreErrors) {
  grow();
  EXPECT_EQ(read(kFirstSectors, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(kFirstSectors - 1, 1024), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(write(kFirstSectors - 1, 1024), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(kEnd - 1, 1024), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(kEnd, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(~uint64_t{0}, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(textOf(first_), std::string(kPartBytes, 'a'));
  EXPECT_EQ(fileSize(upper_.get()), kPartBytes);
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(GrowthTest, WhatIsCutIsAnErrorAndItsFilesAreClosed) {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  grow();
  EXPECT_EQ(descriptors(), before + 2);
  device_->cut(kReadOnlyAt * 512, (kWritableAt - kReadOnlyAt) * 512);
  EXPECT_EQ(read(kReadOnlyAt, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(read(kWritableAt, 512), VIRTIO_BLK_S_OK);
  EXPECT_EQ(capacity(), kEnd);
  device_->cut(kWritableAt * 512, kPartBytes);
  EXPECT_EQ(descriptors(), before);
  EXPECT_EQ(write(kWritableAt, 512), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(textOf(upper_), std::string(kPartBytes, 'w'));
  EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(read(0, kPartBytes), VIRTIO_BLK_S_OK);
  grow();  // the place is free again
  EXPECT_EQ(read(kReadOnlyAt, 512), VIRTIO_BLK_S_OK);
}

TEST_F(GrowthTest, ACutTakesNothingElse) {
  grow();
  EXPECT_THROW(device_->cut(0, kEnd * 512), Error);
  device_->cut(kReadOnlyAt * 512, kPartBytes - 512);        // half of one
  device_->cut((kReadOnlyAt + 1) * 512, ~uint64_t{0} / 2);  // the rest of it, and all of the next
  EXPECT_EQ(read(0, 512), VIRTIO_BLK_S_OK);
  EXPECT_EQ(read(kReadOnlyAt, 512), VIRTIO_BLK_S_OK);
  EXPECT_EQ(read(kWritableAt, 512), VIRTIO_BLK_S_IOERR);
}

TEST_F(GrowthTest, BadGrowthsChangeNothing) {
  const auto refused = [&](const DiskGrowth& growth, std::vector<Fd> files) {
    const uint64_t before = capacity();
    EXPECT_THROW(device_->grow(growth, std::move(files)), Error);
    EXPECT_EQ(capacity(), before);
  };
  refused(growth(kReadOnlyAt, true), {});                              // no descriptor
  refused(growth(kReadOnlyAt, true), only(again(lower_, O_RDWR)));     // one that can write
  refused(growth(kWritableAt, false), only(again(upper_, O_RDONLY)));  // one that cannot
  refused(growth(kFirstSectors - 1, true),
          only(again(lower_, O_RDONLY)));  // over what it began with
  grow();
  refused(growth(kReadOnlyAt + 4, true), only(again(lower_, O_RDONLY)));  // over what has grown
  DiskGrowth smaller = growth(kFirstSectors, true);
  smaller.size_bytes = kReadOnlyAt * 512;
  refused(smaller, only(again(lower_, O_RDONLY)));
}

TEST_F(GrowthTest, ReadOnlyDisksDoNotGrow) {
  const Fd file = again(first_, O_RDONLY);
  BlockDevice disk({"disk-8", kPartBytes, true, {{file.get(), 0, 0, kPartBytes}}}, 1, engine_,
                   loop_);
  EXPECT_THROW(disk.grow(growth(kReadOnlyAt, true), only(again(lower_, O_RDONLY))), Error);
}

// A driver that goes by the size it read before, or takes the disk anew, meets nothing but errors.
TEST_F(GrowthTest, BetweenTheChangeAndItsNoticeAllIsAsItSays) {
  grow();
  EXPECT_EQ(read(0, kPartBytes), VIRTIO_BLK_S_OK);  // has not looked yet
  device_->reset();
  device_->grow({"disk-7", kEnd * 1024, true, {{0, 0, kEnd * 512, 512, true}}},
                only(again(lower_, O_RDONLY)));  // nobody to tell
  EXPECT_EQ(host_.config_changes, 1);
  EXPECT_EQ(capacity(), kEnd * 2);
  std::vector<Queue> rings;
  FakeDriver next(memory_, 16, 0x200000);
  rings.push_back(next.queue());
  device_->activate({memory_, host_, 0, std::move(rings)});
  GuestAddress status = 0;
  ChainBuilder(next)
      .readableValue(header(VIRTIO_BLK_T_IN, kEnd))
      .writable(512)
      .writable(1, &status)
      .send();
  next.put<uint8_t>(status, 0xee);
  device_->notify();
  engine_.drain();
  EXPECT_EQ(next.get<uint8_t>(status), VIRTIO_BLK_S_OK);
}

TEST_F(GrowthTest, AGrownDiskIsNotSaved) {
  EXPECT_TRUE(device_->canSave());
  grow();
  EXPECT_FALSE(device_->canSave());
}

TEST_F(GrowthTest, SegmentsHaveABound) {
  DiskGrowth one = growth(0, true);
  one.size_bytes = uint64_t{1} << 30;
  one.segments[0].length = 512;
  for (size_t i = 0; i < kMaxGrownSegments; ++i) {
    one.segments[0].disk_offset = (kEnd + i) * 512;
    device_->grow(one, only(again(lower_, O_RDONLY)));
  }
  one.segments[0].disk_offset += 512;
  EXPECT_THROW(device_->grow(one, only(again(lower_, O_RDONLY))), Error);
}

}  // namespace
}  // namespace hull::vmm::virtio
