#include "image/ext4/stitch.h"

#include <ext2fs/ext2_fs.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "image/ext4/testing/disk_reader.h"
#include "image/ext4/testing/expectations.h"
#include "image/ext4/testing/layer_maker.h"
#include "image/layer/testing/random_layers.h"

namespace hull::image {
namespace {

using namespace testing;

TEST(Stitch, AnEmptyTreeIsADiskWithAnEmptyRoot) {
  Assembly assembly({});
  assembly.stitch(Tree());
  expectClean(assembly);
  const auto nodes = readDisk(assembly.path());
  ASSERT_EQ(nodes.size(), 1u);  // not even lost+found
  EXPECT_EQ(nodes.at("").links, 2u);
  EXPECT_EQ(assembly.disk().disk_bytes, assembly.disk().metadata_bytes);
}

// The oracle of these tests has teeth: it notices one flipped bit wherever there is metadata.
TEST(Stitch, TheCheckNoticesDamage) {
  LayerMaker layer;
  layer.file("f", 3 * kBlock).xattrs = {{"user.x", std::string(500, 'x')}};
  Assembly assembly(dataBytes({layer.index}));
  assembly.stitch(treeOf({layer.index}));
  if (assembly.check() == kNoE2fsck) GTEST_SKIP() << "e2fsck is not installed";
  ASSERT_EQ(assembly.check(), "");
  const Fd disk = openFile(assembly.path(), O_RDWR);
  int noticed = 0, blocks = 0;
  const std::string zeros(kBlock, '\0');
  for (uint64_t at = 0; at < assembly.disk().metadata_bytes; at += kBlock) {
    std::string block(kBlock, '\0');
    preadFull(disk.get(), std::as_writable_bytes(std::span(block)), at);
    if (block == zeros) continue;
    const size_t place = block.find_first_not_of('\0');
    std::string damaged = block;
    damaged[place] = static_cast<char>(damaged[place] ^ 0x10);
    pwriteFull(disk.get(), asBytes(damaged), at);
    ++blocks;
    noticed += assembly.check() != "";
    pwriteFull(disk.get(), asBytes(block), at);
  }
  EXPECT_GE(blocks, 8);  // superblock, descriptors, bitmaps, inodes, a directory, xattrs
  EXPECT_EQ(noticed, blocks);
}

TEST(Stitch, EveryKindOfFile) {
  LayerMaker layer;
  layer.directory("").mode = 0700;
  layer.directory("etc").uid = 4'000'000'000;
  layer.file("etc/passwd", 1234).mode = 04755;
  layer.file("etc/empty");
  layer.file("exact", 2 * kBlock).gid = 100'000;
  layer.symlink("fast", std::string(59, 'f'));
  layer.symlink("slow", std::string(60, 's'));
  layer.symlink("longest", std::string(4095, 'l'));
  layer.symlink("shortest", "x");
  layer.hardlink("also", "etc/passwd");
  layer.add(entry(EntryType::kFifo, "fifo"));
  Entry& null = layer.add(entry(EntryType::kCharDevice, "null"));
  null.device_major = 1;
  null.device_minor = 3;
  Entry& large = layer.add(entry(EntryType::kBlockDevice, "large"));
  large.device_major = 4095;
  large.device_minor = (1 << 20) - 1;
  expectStitches({layer.index});
}

TEST(Stitch, LayersShareTheDisk) {
  LayerMaker lower, empty, upper;
  lower.file("a/one", 5000);
  lower.file("a/two", 5000);
  upper.file("a/two", 9000);
  upper.add(entry(EntryType::kWhiteout, "a/one"));
  upper.file("b", 1);
  expectStitches({lower.index, empty.index, upper.index});
}

TEST(Stitch, ALayerThatNoFileNeedsIsNotMapped) {
  LayerMaker lower, upper;
  lower.file("gone", 5000);
  upper.add(entry(EntryType::kWhiteout, "gone"));
  upper.file("here", 5000);
  Assembly assembly(dataBytes({lower.index, upper.index}));
  assembly.stitch(treeOf({lower.index, upper.index}));
  ASSERT_EQ(assembly.disk().segments.size(), 2u);
  EXPECT_EQ(assembly.disk().segments[1].layer, 1u);
  expectClean(assembly);
}

TEST(Stitch, DataWithoutFilesIsFine) {
  LayerIndex layer;
  layer.data_bytes = 10 * kBlock;
  expectStitches({layer});
}

TEST(Stitch, WindowsBeginAtGroupBoundaries) {
  LayerMaker first, second;
  first.file("a", 3 * kBlock);
  second.file("b", 200 << 20);
  const std::vector<LayerIndex> layers{first.index, second.index};
  Assembly assembly(dataBytes(layers));
  assembly.stitch(treeOf(layers));
  const auto& segments = assembly.disk().segments;
  ASSERT_EQ(segments.size(), 3u);
  EXPECT_EQ(segments[0].layer, StitchedSegment::kMetadata);
  EXPECT_EQ(segments[0].length, assembly.disk().metadata_bytes);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(segments[i].disk_offset % (128 << 20), 0u);
    EXPECT_EQ(segments[i].length, dataBytes(layers)[i - 1]);
    EXPECT_GE(segments[i].disk_offset, segments[i - 1].disk_offset + segments[i - 1].length);
  }
  EXPECT_EQ(assembly.disk().disk_bytes, segments[2].disk_offset + segments[2].length);
  expectClean(assembly);
}

TEST(Stitch, TimesFrom1901To2310) {
  LayerMaker layer;
  const int64_t times[] = {-2147483648, -1, 0, 2147483647, 2147483648, 4294967296, 10737418239};
  for (const int64_t time : times) {
    Entry& made = layer.file("t" + std::to_string(time));
    made.mtime_seconds = time;
    made.mtime_nanoseconds = 999'999'999;
  }
  expectStitches({layer.index});
}

TEST(Stitch, TimesBeyondAreMovedToTheNearerEnd) {
  LayerMaker layer;
  layer.file("early").mtime_seconds = INT64_MIN;
  layer.file("late").mtime_seconds = INT64_MAX;
  layer.file("odd").mtime_nanoseconds = ~uint32_t{0};
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const auto nodes = readDisk(assembly.path());
  EXPECT_EQ(nodes.at("early").times[0], -2147483648);
  EXPECT_EQ(nodes.at("late").times[0], 10737418239);
  EXPECT_EQ(nodes.at("odd").nanoseconds[0], 999'999'999u);
}

TEST(Stitch, XattrsInInodeAndBlock) {
  LayerMaker layer;
  layer.file("small").xattrs = {{"user.a", "1"}, {"user.empty", ""}};
  layer.file("capability").xattrs = {
      {"security.capability", std::string("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20)}};
  layer.file("block").xattrs = {{"user.b", std::string(3000, 'b')}};
  layer.file("both").xattrs = {{"trusted.t", std::string(300, 't')}, {"user.a", "small"}};
  layer.file("fullest").xattrs = {{"user.v", std::string(4060 - 16 - 4, 'v')}};
  layer.directory("d").xattrs = {{"user.\xff\xfe\x80", "\x80\xff"}};
  layer.symlink("l", std::string(100, 'l')).xattrs = {{"trusted.x", std::string(200, 'x')}};
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 100; i < 220; ++i) many.emplace_back("user.n" + std::to_string(i), "v");
  layer.file("many").xattrs = many;
  layer.file("longname").xattrs = {{"user." + std::string(255, 'n'), "v"}};
  expectStitches({layer.index});
}

TEST(Stitch, EqualXattrBlocksAreShared) {
  LayerMaker layer;
  for (int i = 0; i < 2500; ++i)
    layer.file("f" + std::to_string(i)).xattrs = {{"user.x", std::string(1000, 'x')}};
  layer.file("other").xattrs = {{"user.x", std::string(1000, 'y')}};
  expectStitches({layer.index});
  const Fd metadata = makeMemfd("metadata");
  const StitchedDisk disk = stitch(treeOf({layer.index}), std::vector<uint64_t>{0}, metadata.get());
  EXPECT_LT(disk.metadata_bytes, 1'000'000u);  // not 2500 blocks
}

TEST(Stitch, XattrsOfForeignSystemsAreLeftOut) {
  LayerMaker layer;
  layer.file("f").xattrs = {
      {"com.apple.quarantine", "x"}, {"system.nfs4_acl", "x"}, {"user.", "x"}, {"user.kept", "y"}};
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const std::map<std::string, std::string> kept{{"user.kept", "y"}};
  EXPECT_EQ(readDisk(assembly.path()).at("f").xattrs, kept);
}

TEST(Stitch, AclsAreConverted) {
  // Entries without a name have no id on disk; libext2fs gives 0 for it, the kernel -1.
  constexpr uint32_t kNobody = 0;
  const std::string access = acl({{1, 6, kNobody},
                                  {2, 4, 1000},
                                  {2, 7, 100'000},
                                  {4, 4, kNobody},
                                  {8, 5, 77},
                                  {0x10, 7, kNobody},
                                  {0x20, 4, kNobody}});
  LayerMaker layer;
  layer.directory("d").xattrs = {{"system.posix_acl_access", access},
                                 {"system.posix_acl_default", access},
                                 {"user.other", "x"}};
  expectStitches({layer.index});
}

TEST(Stitch, AgreesWithThePlainModelOnRandomLayers) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomShape shape;
    shape.layers = 1 + seed % 4;
    shape.names = 3 + seed % 9;
    shape.entries_per_layer = 20 + seed * 2;
    shape.odd_names = seed % 3 == 0;
    expectStitches(randomLayers(seed, shape));
    if (HasFailure()) return;
  }
}

std::string stitchedBytes(const Tree& tree, const std::vector<uint64_t>& data_bytes) {
  const Fd metadata = makeMemfd("metadata");
  const StitchedDisk disk = stitch(tree, data_bytes, metadata.get());
  std::string bytes(fileSize(metadata.get()), '\0');
  preadFull(metadata.get(), std::as_writable_bytes(std::span(bytes)), 0);
  return bytes + encode(disk);
}

TEST(Stitch, TheSameLayersGiveTheSameBytes) {
  const auto layers = randomLayers(7, {.entries_per_layer = 100, .names = 20});
  const std::string once = stitchedBytes(treeOf(layers), dataBytes(layers));
  EXPECT_TRUE(once == stitchedBytes(treeOf(layers), dataBytes(layers)));
  auto changed = layers;
  changed.back().entries.push_back(entry(EntryType::kFifo, "one-more"));
  EXPECT_FALSE(once == stitchedBytes(treeOf(changed), dataBytes(changed)));
}

TEST(Stitch, EqualTreesGiveEqualBytesWhateverTheirHistory) {
  LayerMaker direct, lower, upper;
  direct.file("a");
  direct.file("b");
  lower.file("b");
  lower.file("c");
  upper.add(entry(EntryType::kWhiteout, "c"));
  upper.file("a");
  EXPECT_TRUE(stitchedBytes(treeOf({direct.index}), {0}) ==
              stitchedBytes(treeOf({lower.index, upper.index}), {0, 0}));
}

TEST(Stitch, UuidsTellDisksApart) {
  LayerMaker one, other;
  one.file("a", 1);
  other.file("a", 2);
  const std::string first = stitchedBytes(treeOf({one.index}), dataBytes({one.index}));
  const std::string second = stitchedBytes(treeOf({other.index}), dataBytes({other.index}));
  constexpr size_t kUuidOffset = 1024 + 0x68;
  EXPECT_NE(first.substr(kUuidOffset, 16), second.substr(kUuidOffset, 16));
  EXPECT_NE(first.substr(kUuidOffset, 16), std::string(16, '\0'));
}

}  // namespace
}  // namespace hull::image
