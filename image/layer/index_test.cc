#include "image/layer/index.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "image/layer/path.h"

namespace hull::image {
namespace {

Entry file(const std::string& path, uint64_t size, uint64_t offset) {
  Entry entry;
  entry.path = path;
  entry.mode = 04755;
  entry.uid = 4'000'000'000;
  entry.gid = 7;
  entry.mtime_seconds = -5;
  entry.mtime_nanoseconds = 999'999'999;
  entry.size = size;
  entry.data_offset = offset;
  entry.xattrs = {{"security.capability", std::string("\x01\0\xff", 3)}, {"user.a", ""}};
  return entry;
}

Entry special(const std::string& path, EntryType type, const std::string& link = "") {
  Entry entry;
  entry.path = path;
  entry.type = type;
  entry.link = link;
  return entry;
}

LayerIndex sample() {
  LayerIndex index;
  index.data_bytes = 8192;
  index.entries = {special("", EntryType::kDirectory),
                   file("a/\xff\xfe\n", 4097, 0),
                   file("empty", 0, 0),
                   special("link", EntryType::kSymlink, "../../etc/passwd"),
                   special("hard", EntryType::kHardlink, "a/b"),
                   special("fifo", EntryType::kFifo),
                   special("gone", EntryType::kWhiteout),
                   special("", EntryType::kOpaque)};
  Entry device = special("dev/sda", EntryType::kBlockDevice);
  device.device_major = 8;
  device.device_minor = 1048575;
  index.entries.push_back(device);
  return index;
}

TEST(LayerIndex, DecodesWhatItEncodes) {
  const std::string bytes = encode(sample());
  const LayerIndex back = decodeLayerIndex(bytes);
  ASSERT_EQ(back.entries.size(), sample().entries.size());
  EXPECT_EQ(back.data_bytes, 8192u);
  EXPECT_EQ(back.entries[1].path, "a/\xff\xfe\n");
  EXPECT_EQ(back.entries[1].mode, 04755);
  EXPECT_EQ(back.entries[1].uid, 4'000'000'000);
  EXPECT_EQ(back.entries[1].mtime_seconds, -5);
  EXPECT_EQ(back.entries[1].xattrs, sample().entries[1].xattrs);
  EXPECT_EQ(back.entries[3].link, "../../etc/passwd");
  EXPECT_EQ(back.entries.back().device_minor, 1048575u);
  EXPECT_EQ(encode(back), bytes);
}

TEST(LayerIndex, EveryTruncationIsAnError) {
  const std::string bytes = encode(sample());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decodeLayerIndex(std::string_view(bytes).substr(0, size)), Error) << size;
  }
  EXPECT_THROW(decodeLayerIndex(bytes + "x"), Error);
}

TEST(LayerIndex, WhatCannotBeIsRefused) {
  const std::vector<std::function<void(LayerIndex&)>> harms = {
      [](LayerIndex& i) { i.data_bytes = 4096; },
      [](LayerIndex& i) { i.data_bytes = 8193; },
      [](LayerIndex& i) { i.entries[1].path = "/a"; },
      [](LayerIndex& i) { i.entries[1].path = "a/../b"; },
      [](LayerIndex& i) { i.entries[1].path = ""; },
      [](LayerIndex& i) { i.entries[1].path = std::string("a\0b", 3); },
      [](LayerIndex& i) { i.entries[1].path = std::string(256, 'n'); },
      [](LayerIndex& i) { i.entries[1].mode = 010000; },
      [](LayerIndex& i) { i.entries[1].mtime_nanoseconds = 1'000'000'000; },
      [](LayerIndex& i) { i.entries[1].data_offset = 1; },
      [](LayerIndex& i) { i.entries[1].data_offset = uint64_t{0} - 4096; },
      [](LayerIndex& i) { i.entries[1].size = UINT64_MAX; },
      [](LayerIndex& i) { std::swap(i.entries[1].xattrs[0], i.entries[1].xattrs[1]); },
      [](LayerIndex& i) { i.entries[1].xattrs[0].second.assign(kMaxXattrBytes + 1, 'x'); },
      [](LayerIndex& i) { i.entries[1].link = "x"; },
      [](LayerIndex& i) { i.entries[3].link = ""; },
      [](LayerIndex& i) { i.entries[4].link = "../x"; },
      [](LayerIndex& i) { i.entries[5].size = 1; },
      [](LayerIndex& i) { i.entries[5].type = static_cast<EntryType>(9); },
  };
  for (size_t i = 0; i < harms.size(); ++i) {
    LayerIndex index = sample();
    harms[i](index);
    EXPECT_THROW(decodeLayerIndex(encode(index)), Error) << "harm " << i;
  }
}

TEST(LayerIndex, AHugeCountAllocatesNothing) {
  std::string bytes = encode(sample());
  bytes.replace(8, 8, std::string(8, '\x7f'));
  EXPECT_THROW(decodeLayerIndex(bytes), Error);
}

TEST(CleanPath, IsLexicalAndClampedAtTheRoot) {
  EXPECT_EQ(cleanPath("./"), "");
  EXPECT_EQ(cleanPath("/"), "");
  EXPECT_EQ(cleanPath("/etc//passwd/"), "etc/passwd");
  EXPECT_EQ(cleanPath("./a/./b/../c"), "a/c");
  EXPECT_EQ(cleanPath("../../../etc/passwd"), "etc/passwd");
  EXPECT_EQ(cleanPath("a/../../b"), "b");
  EXPECT_EQ(cleanPath("..."), "...");
  EXPECT_EQ(cleanPath("\xff\n"), "\xff\n");
  for (const char* path : {"a", "a/b", "...", ""}) EXPECT_TRUE(isCleanPath(path)) << path;
  for (const char* path : {"/", "a/", "a//b", ".", "..", "a/./b", "a/.."}) {
    EXPECT_FALSE(isCleanPath(path)) << path;
  }
}

TEST(CleanPath, BoundsNames) {
  EXPECT_EQ(cleanPath(std::string(255, 'a')).size(), 255u);
  EXPECT_THROW(cleanPath(std::string(256, 'a')), Error);
  EXPECT_THROW(cleanPath(std::string("a\0b", 3)), Error);
  std::string deep;
  for (int i = 0; i < 2100; ++i) deep += "d/";
  EXPECT_THROW(cleanPath(deep), Error);
}

TEST(QuotePath, NeverPrintsControlCharacters) {
  EXPECT_EQ(quotePath("a\n\"b"), "\"a\\x0a\\x22b\"");
}

}  // namespace
}  // namespace hull::image
