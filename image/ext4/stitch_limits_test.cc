// Sizes, counts and names at ext4's limits, and what lies beyond them.

#include "image/ext4/stitch.h"

#include <ext2fs/ext2_fs.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "image/ext4/testing/disk_reader.h"
#include "image/ext4/testing/expectations.h"
#include "image/ext4/testing/layer_maker.h"

namespace hull::image {
namespace {

using namespace testing;

void expectRefused(const std::vector<LayerIndex>& layers, ErrorKind kind, const std::string& text,
                   std::vector<uint64_t> data_bytes = {}) {
  if (data_bytes.empty()) data_bytes = dataBytes(layers);
  const Fd metadata = makeMemfd("metadata");
  try {
    stitch(treeOf(layers), data_bytes, metadata.get());
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.what(), ::testing::HasSubstr(text));
  }
}

TEST(StitchLimits, NamesOfAnyByteAndFullLength) {
  LayerMaker layer;
  for (int byte = 1; byte < 256; ++byte)
    if (byte != '/' && byte != '.') layer.file(std::string(1, static_cast<char>(byte)), 1);
  for (int byte = 128; byte < 256; ++byte)
    layer.file("d/" + std::string(255, static_cast<char>(byte)));
  expectStitches({layer.index});
}

TEST(StitchLimits, DeepTrees) {
  LayerMaker layer;
  std::string path = "d";
  while (path.size() + 2 <= kMaxPathBytes) path += "/d";
  layer.directory(path);
  expectStitches({layer.index});
}

// One name after the other, across the borders of one block, two, and the hash tree.
TEST(StitchLimits, DirectoriesOfEverySize) {
  for (const size_t name_bytes : {1u, 40u, 255u}) {
    for (const int count : {1, 14, 15, 16, 30, 31, 32, 80, 170, 339, 340, 341, 700, 8000}) {
      if (name_bytes == 255 && count > 1000) continue;
      SCOPED_TRACE(std::to_string(name_bytes) + " bytes, " + std::to_string(count) + " names");
      LayerMaker layer;
      for (int i = 0; i < count; ++i) {
        std::string name = std::to_string(i);
        name.insert(0, name_bytes > name.size() ? name_bytes - name.size() : 0, 'n');
        layer.file(name);
      }
      Assembly assembly({0});
      assembly.stitch(treeOf({layer.index}));
      expectClean(assembly);
      EXPECT_EQ(readDisk(assembly.path()).size(), static_cast<size_t>(count) + 1);
      if (HasFailure()) return;
    }
  }
}

TEST(StitchLimits, ADirectoryOf200000NamesIsAHashTree) {
  LayerMaker layer;
  for (int i = 0; i < 200'000; ++i)
    layer.file("big/a-name-of-some-length-" + std::to_string(i) + std::string(i % 50, 'x'));
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const auto nodes = readDisk(assembly.path());
  EXPECT_EQ(nodes.size(), 200'002u);
  EXPECT_TRUE(nodes.at("big").flags & EXT2_INDEX_FL);
  EXPECT_GT(nodes.at("big").size, 507u * kBlock);  // so it has a second level
}

TEST(StitchLimits, NamesWithOneHashMayBePartedByALeafsEnd) {
  LayerMaker layer;
  for (const std::string& name : collidingNames(300)) layer.file("d/" + name);
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  EXPECT_EQ(readDisk(assembly.path()).size(), 602u);
}

TEST(StitchLimits, ADirectoryOfManyDirectories) {
  LayerMaker layer;
  for (int i = 0; i < 70'000; ++i) layer.directory("d/" + std::to_string(i));
  for (int i = 0; i < 64'998; ++i) layer.directory("e/" + std::to_string(i));
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const auto nodes = readDisk(assembly.path());
  EXPECT_EQ(nodes.at("d").links, 1u);
  EXPECT_EQ(nodes.at("e").links, 65'000u);
  EXPECT_EQ(nodes.at("").links, 4u);
}

TEST(StitchLimits, MoreHardlinksThanExt4CountsAreRefused) {
  for (const int links : {65'000, 65'001, 70'000}) {
    LayerMaker layer;
    layer.file("d/0", 1);
    for (int i = 1; i < links; ++i) layer.hardlink("d/" + std::to_string(i), "d/0");
    if (links > 65'000) {
      expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/d/0\"");
      continue;
    }
    Assembly assembly(dataBytes({layer.index}));
    assembly.stitch(treeOf({layer.index}));
    expectClean(assembly);
    EXPECT_EQ(readDisk(assembly.path()).at("d/0").links, 65'000u);
  }
}

// Extents hold 128 MiB: 4 fit in the inode, 340 in a block, 4 × 340 below one level of blocks. From
// 2 TiB on the count of sectors needs more than 32 bits.
TEST(StitchLimits, LargeFilesGetExtentTrees) {
  for (const uint64_t size : {uint64_t{512} << 20, (uint64_t{512} << 20) + 1, 5 * kGiB,
                              uint64_t{340} * (128 << 20) + 1, 200 * kGiB, 2100 * kGiB}) {
    SCOPED_TRACE(size);
    LayerMaker layer;
    layer.file("before", 100);
    layer.file("large", size);
    layer.file("after", 100);
    const std::vector<LayerIndex> layers{layer.index};
    Assembly assembly(dataBytes(layers));
    const uint64_t start = layers[0].entries[1].data_offset;
    for (const uint64_t place : {uint64_t{0}, size / 2, size - 5})
      pwriteFull(assembly.data(0), asBytes("here!"), start + place);
    assembly.stitch(treeOf(layers));
    expectClean(assembly);
    EXPECT_EQ(readDisk(assembly.path()).at("large").size, size);
    for (const uint64_t place : {uint64_t{0}, size / 2, size - 5})
      EXPECT_EQ(readAt(assembly.path(), "large", place, 5), "here!") << place;
  }
}

TEST(StitchLimits, FilesBeyondExt4AreRefused) {
  LayerMaker layer;
  layer.file("dir/huge", uint64_t{16} << 40);
  expectRefused({layer.index}, ErrorKind::kTooLarge, "\"/dir/huge\"");
  LayerMaker almost;
  almost.file("dir/huge", (uint64_t{16} << 40) - kBlock);
  expectRefused({almost.index}, ErrorKind::kTooLarge, "16 TiB");
}

TEST(StitchLimits, ContentMustLieInItsLayer) {
  LayerMaker layer;
  layer.file("dir/f", kBlock + 1);
  for (const uint64_t bytes : {uint64_t{0}, kBlock})
    expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/dir/f\"", {bytes});
  layer.index.entries[0].data_offset = ~uint64_t{0} - kBlock + 1;
  expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/dir/f\"", {10 * kBlock});
  layer.index.entries[0].data_offset = 512;
  expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/dir/f\"", {10 * kBlock});
  expectRefused({layer.index}, ErrorKind::kInvalidArgument, "multiple", {10 * kBlock + 1});
}

TEST(StitchLimits, TwoFilesOnTheSameBlocksAreRefused) {
  LayerMaker layer;
  layer.file("one", 3 * kBlock);
  layer.file("two", kBlock).data_offset = 2 * kBlock;
  expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/two\": shares its content with \"/one\"");
}

TEST(StitchLimits, ImpossibleSymlinksAndDevicesAreRefused) {
  for (const std::string& target :
       {std::string(), std::string(4096, 'x'), std::string("a\0b", 3)}) {
    LayerMaker layer;
    layer.symlink("dir/l", target);
    expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dir/l\"");
  }
  LayerMaker layer;
  layer.add(entry(EntryType::kCharDevice, "dev/x")).device_major = 4096;
  expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dev/x\"");
}

TEST(StitchLimits, XattrsThatDoNotFitAreRefused) {
  LayerMaker layer;
  layer.file("dir/f").xattrs = {{"user.v", std::string(4061 - 16 - 4, 'v')}};
  expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dir/f\"");
  layer.index.entries[0].xattrs = {{"user." + std::string(256, 'n'), "v"}};
  expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dir/f\"");
}

TEST(StitchLimits, MalformedAclsAreRefused) {
  for (const std::string& value :
       {std::string(), std::string("\1\0\0\0", 4), std::string("\2\0\0\0\1", 5), acl({{3, 4, 0}}),
        acl({{1, 8, 0}}), acl({{1, 7, 0}}) + "x"}) {
    LayerMaker layer;
    layer.file("dir/f").xattrs = {{"system.posix_acl_access", value}};
    expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/dir/f\"");
  }
}

// Many inodes and nothing else: the disk gets groups for their sake.
TEST(StitchLimits, MoreInodesThanOneGroupHolds) {
  for (const int count : {32'757, 32'758, 32'759, 150'000}) {
    LayerMaker layer;
    for (int i = 0; i < count; ++i)
      layer.file("d" + std::to_string(i % 100) + "/" + std::to_string(i));
    SCOPED_TRACE(count);
    Assembly assembly({0});
    assembly.stitch(treeOf({layer.index}));
    expectClean(assembly);
    EXPECT_EQ(readDisk(assembly.path()).size(), static_cast<size_t>(count) + 101);
  }
}

TEST(StitchLimits, MetadataIsSmall) {
  LayerMaker layer;
  constexpr uint64_t kFiles = 50'000;
  for (uint64_t i = 0; i < kFiles; ++i)
    layer.file("usr/d" + std::to_string(i / 200) + "/file-name-" + std::to_string(i),
               10'000 + i % 3 * kBlock);
  Assembly assembly(dataBytes({layer.index}));
  assembly.stitch(treeOf({layer.index}));
  EXPECT_LE(assembly.metadataBytesAllocated(), 310 * kFiles);
  expectClean(assembly);
}

}  // namespace
}  // namespace hull::image
