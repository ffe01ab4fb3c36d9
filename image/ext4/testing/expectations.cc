#include "image/ext4/testing/expectations.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <iostream>
#include <unordered_map>

#include "image/ext4/format.h"
#include "image/ext4/testing/layer_maker.h"

namespace hull::image::testing {
namespace {

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

void expectNode(const ContentFunction& content, const ReadNode& node, const PlainNode& plain) {
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
    EXPECT_TRUE(node.content == content(plain));
  } else if (wanted.type == EntryType::kSymlink) {
    EXPECT_EQ(node.content, wanted.link);
  } else if (wanted.type != EntryType::kDirectory) {
    EXPECT_EQ(node.device_major, wanted.device_major);
    EXPECT_EQ(node.device_minor, wanted.device_minor);
  }
}

}  // namespace

void expectClean(const Assembly& assembly) {
  const std::string complaint = assembly.check();
  if (complaint == kNoE2fsck) {
    std::cout << "SKIPPED CHECK: e2fsck (package e2fsprogs) is not installed\n";
    return;
  }
  EXPECT_EQ(complaint, "");
}

void expectSame(const Assembly& assembly, const PlainTree& plain) {
  const auto content = [&](const PlainNode& node) {
    const Entry& file = node.attributes;
    return assembly.contentOf(node.layer, file.data_offset, file.size);
  };
  expectSame(readDisk(assembly.path()), content, plain);
}

void expectSame(const std::map<std::string, ReadNode>& nodes, const ContentFunction& content,
                const PlainTree& plain) {
  std::map<const PlainNode*, uint32_t> inodes, names;
  for (const auto& [path, node] : plain) ++names[node.get()];
  for (const auto& [path, wanted] : plain) {
    SCOPED_TRACE("path " + ::testing::PrintToString(path));
    const auto there = nodes.find(path);
    if (there == nodes.end()) {
      ADD_FAILURE() << "missing";
      continue;
    }
    expectNode(content, there->second, *wanted);
    const auto [known, is_new] = inodes.emplace(wanted.get(), there->second.inode);
    EXPECT_EQ(known->second, there->second.inode);
    if (!S_ISDIR(there->second.mode)) {
      EXPECT_EQ(there->second.links, names[wanted.get()]);
    }
  }
  EXPECT_EQ(nodes.size(), plain.size());
}

void expectStitches(const std::vector<LayerIndex>& layers) {
  Assembly assembly(dataBytes(layers));
  assembly.fillData();
  assembly.stitch(treeOf(layers));
  expectClean(assembly);
  expectSame(assembly, applyPlainly(layers));
}

std::vector<std::string> collidingNames(size_t pairs) {
  std::unordered_map<uint32_t, std::string> seen;
  std::vector<std::string> names;
  for (uint32_t i = 0; names.size() < 2 * pairs; ++i) {
    const std::string name = "n" + std::to_string(i);
    ext2_dirhash_t hash = 0, minor_hash = 0;
    ext2fs_dirhash(EXT2_HASH_HALF_MD4_UNSIGNED, name.data(), static_cast<int>(name.size()),
                   ext4::kHashSeed.data(), &hash, &minor_hash);
    const auto [other, is_new] = seen.emplace(hash, name);
    if (is_new) continue;
    names.push_back(other->second);
    names.push_back(name);
    seen.erase(other);
  }
  return names;
}

}  // namespace hull::image::testing
