#include "image/ext4/stitch.h"

#include <ext2fs/ext2_fs.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>

#include "base/error.h"
#include "image/ext4/testing/disk_reader.h"
#include "image/layer/testing/plain_tree.h"
#include "image/layer/testing/random_layers.h"

namespace hull::image {
namespace {

using testing::Assembly;
using ::testing::HasSubstr;
using testing::ReadNode;

constexpr uint64_t kBlock = kContentAlignment;
constexpr uint64_t kGiB = uint64_t{1} << 30;

Entry entry(EntryType type, std::string path) {
  Entry made;
  made.type = type;
  made.path = std::move(path);
  made.mode = 0644;
  return made;
}

// A layer put together by hand; content is laid out in the order of the calls.
struct LayerMaker {
  LayerIndex index;

  Entry& add(Entry made) { return index.entries.emplace_back(std::move(made)); }
  Entry& directory(std::string path) {
    Entry& made = add(entry(EntryType::kDirectory, std::move(path)));
    made.mode = 0755;
    return made;
  }
  Entry& file(std::string path, uint64_t size = 0) {
    Entry& made = add(entry(EntryType::kFile, std::move(path)));
    made.size = size;
    made.data_offset = size ? index.data_bytes : 0;
    index.data_bytes += (size + kBlock - 1) / kBlock * kBlock;
    return made;
  }
  Entry& symlink(std::string path, std::string to) {
    Entry& made = add(entry(EntryType::kSymlink, std::move(path)));
    made.link = std::move(to);
    made.mode = 0777;
    return made;
  }
  Entry& hardlink(std::string path, std::string to) {
    Entry& made = add(entry(EntryType::kHardlink, std::move(path)));
    made.link = std::move(to);
    return made;
  }
};

Tree treeOf(const std::vector<LayerIndex>& layers) {
  Tree tree;
  for (const LayerIndex& layer : layers) tree.apply(layer);
  return tree;
}

std::vector<uint64_t> dataBytes(const std::vector<LayerIndex>& layers) {
  std::vector<uint64_t> sizes;
  for (const LayerIndex& layer : layers) sizes.push_back(layer.data_bytes);
  return sizes;
}

void expectClean(const Assembly& assembly) {
  const std::string complaint = assembly.check();
  if (complaint == testing::kNoE2fsck) {
    std::cout << "SKIPPED CHECK: e2fsck (package e2fsprogs) is not installed\n";
    return;
  }
  EXPECT_EQ(complaint, "");
}

mode_t typeBits(EntryType type) {
  switch (type) {
    case EntryType::kDirectory:
      return S_IFDIR;
    case EntryType::kSymlink:
      return S_IFLNK;
    case EntryType::kCharDevice:
      return S_IFCHR;
    case EntryType::kBlockDevice:
      return S_IFBLK;
    case EntryType::kFifo:
      return S_IFIFO;
    default:
      return S_IFREG;
  }
}

void expectNode(const Assembly& assembly, const ReadNode& node, const testing::PlainNode& plain) {
  const Entry& wanted = plain.attributes;
  EXPECT_EQ(node.mode, typeBits(wanted.type) | wanted.mode);
  EXPECT_EQ(node.uid, wanted.uid);
  EXPECT_EQ(node.gid, wanted.gid);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(node.times[i], wanted.mtime_seconds);
    EXPECT_EQ(node.nanoseconds[i], wanted.mtime_nanoseconds);
  }
  const std::map<std::string, std::string> xattrs(wanted.xattrs.begin(), wanted.xattrs.end());
  EXPECT_EQ(node.xattrs, xattrs);
  if (wanted.type == EntryType::kFile) {
    EXPECT_EQ(node.size, wanted.size);
    EXPECT_TRUE(node.content == assembly.contentOf(plain.layer, wanted.data_offset, wanted.size));
  } else if (wanted.type == EntryType::kSymlink) {
    EXPECT_EQ(node.content, wanted.link);
  } else if (wanted.type != EntryType::kDirectory) {
    EXPECT_EQ(node.device_major, wanted.device_major);
    EXPECT_EQ(node.device_minor, wanted.device_minor);
  }
}

// The disk holds exactly what the plain model says.
void expectSame(const Assembly& assembly, const testing::PlainTree& plain) {
  const auto nodes = testing::readDisk(assembly.path());
  std::map<const testing::PlainNode*, uint32_t> inodes, names;
  for (const auto& [path, node] : plain) ++names[node.get()];
  for (const auto& [path, wanted] : plain) {
    SCOPED_TRACE("path " + ::testing::PrintToString(path));
    const auto there = nodes.find(path);
    if (there == nodes.end()) {
      ADD_FAILURE() << "missing";
      continue;
    }
    expectNode(assembly, there->second, *wanted);
    const auto [known, is_new] = inodes.emplace(wanted.get(), there->second.inode);
    EXPECT_EQ(known->second, there->second.inode);
    if (!S_ISDIR(there->second.mode)) {
      EXPECT_EQ(there->second.links, names[wanted.get()]);
    }
  }
  EXPECT_EQ(nodes.size(), plain.size());
}

// Stitches the layers, and holds the result against the plain model and e2fsck.
void expectStitches(const std::vector<LayerIndex>& layers) {
  Assembly assembly(dataBytes(layers));
  assembly.fillData();
  assembly.stitch(treeOf(layers));
  expectClean(assembly);
  expectSame(assembly, testing::applyPlainly(layers));
}

void expectRefused(const std::vector<LayerIndex>& layers, ErrorKind kind, const std::string& text,
                   std::vector<uint64_t> data_bytes = {}) {
  if (data_bytes.empty()) data_bytes = dataBytes(layers);
  const Fd metadata = makeMemfd("metadata");
  try {
    stitch(treeOf(layers), data_bytes, metadata.get());
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(Stitch, AnEmptyTreeIsADiskWithAnEmptyRoot) {
  Assembly assembly({});
  assembly.stitch(Tree());
  expectClean(assembly);
  const auto nodes = testing::readDisk(assembly.path());
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
  if (assembly.check() == testing::kNoE2fsck) GTEST_SKIP() << "e2fsck is not installed";
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
  const auto nodes = testing::readDisk(assembly.path());
  EXPECT_EQ(nodes.at("early").times[0], -2147483648);
  EXPECT_EQ(nodes.at("late").times[0], 10737418239);
  EXPECT_EQ(nodes.at("odd").nanoseconds[0], 999'999'999u);
}

TEST(Stitch, NamesOfAnyByteAndFullLength) {
  LayerMaker layer;
  for (int byte = 1; byte < 256; ++byte)
    if (byte != '/' && byte != '.') layer.file(std::string(1, static_cast<char>(byte)), 1);
  for (int byte = 128; byte < 256; ++byte)
    layer.file("d/" + std::string(255, static_cast<char>(byte)));
  expectStitches({layer.index});
}

TEST(Stitch, DeepTrees) {
  LayerMaker layer;
  std::string path = "d";
  while (path.size() + 2 <= kMaxPathBytes) path += "/d";
  layer.directory(path);
  expectStitches({layer.index});
}

// One name after the other, across the borders of one block, two, and the hash tree.
TEST(Stitch, DirectoriesOfEverySize) {
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
      EXPECT_EQ(testing::readDisk(assembly.path()).size(), static_cast<size_t>(count) + 1);
      if (HasFailure()) return;
    }
  }
}

TEST(Stitch, ADirectoryOf200000NamesIsAHashTree) {
  LayerMaker layer;
  for (int i = 0; i < 200'000; ++i)
    layer.file("big/a-name-of-some-length-" + std::to_string(i) + std::string(i % 50, 'x'));
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const auto nodes = testing::readDisk(assembly.path());
  EXPECT_EQ(nodes.size(), 200'002u);
  EXPECT_TRUE(nodes.at("big").flags & EXT2_INDEX_FL);
  EXPECT_GT(nodes.at("big").size, 507u * kBlock);  // so it has a second level
}

TEST(Stitch, ADirectoryOfManyDirectories) {
  LayerMaker layer;
  for (int i = 0; i < 70'000; ++i) layer.directory("d/" + std::to_string(i));
  for (int i = 0; i < 64'998; ++i) layer.directory("e/" + std::to_string(i));
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const auto nodes = testing::readDisk(assembly.path());
  EXPECT_EQ(nodes.at("d").links, 1u);
  EXPECT_EQ(nodes.at("e").links, 65'000u);
  EXPECT_EQ(nodes.at("").links, 4u);
}

TEST(Stitch, MoreHardlinksThanExt4CountsAreRefused) {
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
    EXPECT_EQ(testing::readDisk(assembly.path()).at("d/0").links, 65'000u);
  }
}

// Extents hold 128 MiB: 4 fit in the inode, 340 in a block, 4 × 340 below one level of blocks. From
// 2 TiB on the count of sectors needs more than 32 bits.
TEST(Stitch, LargeFilesGetExtentTrees) {
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
    EXPECT_EQ(testing::readDisk(assembly.path()).at("large").size, size);
    for (const uint64_t place : {uint64_t{0}, size / 2, size - 5})
      EXPECT_EQ(testing::readAt(assembly.path(), "large", place, 5), "here!") << place;
  }
}

TEST(Stitch, FilesBeyondExt4AreRefused) {
  LayerMaker layer;
  layer.file("dir/huge", uint64_t{16} << 40);
  expectRefused({layer.index}, ErrorKind::kTooLarge, "\"/dir/huge\"");
  LayerMaker almost;
  almost.file("dir/huge", (uint64_t{16} << 40) - kBlock);
  expectRefused({almost.index}, ErrorKind::kTooLarge, "16 TiB");
}

TEST(Stitch, ContentMustLieInItsLayer) {
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

TEST(Stitch, TwoFilesOnTheSameBlocksAreRefused) {
  LayerMaker layer;
  layer.file("one", 3 * kBlock);
  layer.file("two", kBlock).data_offset = 2 * kBlock;
  expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/two\": shares its content with \"/one\"");
}

TEST(Stitch, ImpossibleSymlinksAndDevicesAreRefused) {
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

TEST(Stitch, XattrsThatDoNotFitAreRefused) {
  LayerMaker layer;
  layer.file("dir/f").xattrs = {{"user.v", std::string(4061 - 16 - 4, 'v')}};
  expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dir/f\"");
  layer.index.entries[0].xattrs = {{"user." + std::string(256, 'n'), "v"}};
  expectRefused({layer.index}, ErrorKind::kNotSupported, "\"/dir/f\"");
}

TEST(Stitch, XattrsOfForeignSystemsAreLeftOut) {
  LayerMaker layer;
  layer.file("f").xattrs = {
      {"com.apple.quarantine", "x"}, {"system.nfs4_acl", "x"}, {"user.", "x"}, {"user.kept", "y"}};
  Assembly assembly({0});
  assembly.stitch(treeOf({layer.index}));
  expectClean(assembly);
  const std::map<std::string, std::string> kept{{"user.kept", "y"}};
  EXPECT_EQ(testing::readDisk(assembly.path()).at("f").xattrs, kept);
}

std::string acl(std::initializer_list<std::tuple<uint16_t, uint16_t, uint32_t>> entries) {
  std::string made("\2\0\0\0", 4);
  const auto append = [&](auto value) {
    made.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const auto& [tag, permissions, id] : entries) {
    append(tag);
    append(permissions);
    append(id);
  }
  return made;
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

TEST(Stitch, MalformedAclsAreRefused) {
  for (const std::string& value :
       {std::string(), std::string("\1\0\0\0", 4), std::string("\2\0\0\0\1", 5), acl({{3, 4, 0}}),
        acl({{1, 8, 0}}), acl({{1, 7, 0}}) + "x"}) {
    LayerMaker layer;
    layer.file("dir/f").xattrs = {{"system.posix_acl_access", value}};
    expectRefused({layer.index}, ErrorKind::kCorrupt, "\"/dir/f\"");
  }
}

TEST(Stitch, AgreesWithThePlainModelOnRandomLayers) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    testing::RandomShape shape;
    shape.layers = 1 + seed % 4;
    shape.names = 3 + seed % 9;
    shape.entries_per_layer = 20 + seed * 2;
    shape.odd_names = seed % 3 == 0;
    expectStitches(testing::randomLayers(seed, shape));
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
  const auto layers = testing::randomLayers(7, {.entries_per_layer = 100, .names = 20});
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

// Many inodes and nothing else: the disk gets groups for their sake.
TEST(Stitch, MoreInodesThanOneGroupHolds) {
  for (const int count : {32'757, 32'758, 32'759, 150'000}) {
    LayerMaker layer;
    for (int i = 0; i < count; ++i)
      layer.file("d" + std::to_string(i % 100) + "/" + std::to_string(i));
    SCOPED_TRACE(count);
    Assembly assembly({0});
    assembly.stitch(treeOf({layer.index}));
    expectClean(assembly);
    EXPECT_EQ(testing::readDisk(assembly.path()).size(), static_cast<size_t>(count) + 101);
  }
}

TEST(Stitch, MetadataIsSmall) {
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
