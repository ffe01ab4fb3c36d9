#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "image/ext4/stitch.h"

namespace hull::image {
namespace {

constexpr uint64_t kBlock = kContentAlignment;

StitchedDisk sample() {
  StitchedDisk disk;
  disk.disk_bytes = 1000 * kBlock;
  disk.metadata_bytes = 10 * kBlock;
  disk.segments = {{StitchedSegment::kMetadata, 0, 0, 10 * kBlock},
                   {0, 0, 100 * kBlock, 50 * kBlock},
                   {2, 8 * kBlock, 150 * kBlock, 850 * kBlock}};
  return disk;
}

void expectCorrupt(const std::string& bytes) {
  try {
    decodeStitchedDisk(bytes);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  }
}

TEST(StitchedDisk, SurvivesEncoding) {
  const StitchedDisk disk = decodeStitchedDisk(encode(sample()));
  EXPECT_EQ(disk.disk_bytes, 1000 * kBlock);
  EXPECT_EQ(disk.metadata_bytes, 10 * kBlock);
  ASSERT_EQ(disk.segments.size(), 3u);
  EXPECT_EQ(disk.segments[0].layer, StitchedSegment::kMetadata);
  EXPECT_EQ(disk.segments[2].layer, 2u);
  EXPECT_EQ(disk.segments[2].file_offset, 8 * kBlock);
  EXPECT_EQ(disk.segments[2].disk_offset, 150 * kBlock);
  EXPECT_EQ(disk.segments[2].length, 850 * kBlock);
}

TEST(StitchedDisk, CutShortOrTooLongIsCorrupt) {
  const std::string bytes = encode(sample());
  for (size_t size = 0; size < bytes.size(); ++size) expectCorrupt(bytes.substr(0, size));
  expectCorrupt(bytes + '\0');
}

TEST(StitchedDisk, NonsenseIsCorrupt) {
  const std::function<void(StitchedDisk&)> kDamages[] = {
      [](auto& disk) { disk.disk_bytes += 1; },
      [](auto& disk) { disk.disk_bytes -= kBlock; },      // the last segment sticks out
      [](auto& disk) { disk.metadata_bytes -= kBlock; },  // the metadata segment does
      [](auto& disk) { disk.segments[1].length = 0; },
      [](auto& disk) { disk.segments[1].length += kBlock; },  // overlaps the next
      [](auto& disk) { disk.segments[1].length += 512; },
      [](auto& disk) { disk.segments[1].file_offset = 1; },
      [](auto& disk) { disk.segments[1].disk_offset = 9 * kBlock; },
      [](auto& disk) { disk.segments[2].length = ~uint64_t{0} - kBlock + 1; },
      [](auto& disk) { disk.segments[2].file_offset = ~uint64_t{0} - kBlock + 1; },
      [](auto& disk) { std::swap(disk.segments[1], disk.segments[2]); },
      [](auto& disk) { disk.segments.resize(5000); },
  };
  for (const auto& damage : kDamages) {
    StitchedDisk disk = sample();
    damage(disk);
    expectCorrupt(encode(disk));
  }
  std::string other = encode(sample());
  other[0] = static_cast<char>(other[0] + 1);
  expectCorrupt(other);
}

}  // namespace
}  // namespace hull::image
