// Directory blocks, packed: a reader never adds to them. A small directory is a list in name order;
// a larger one gets a hash tree (ext4 "Hash Tree Directories") over its leaf blocks, so that a
// lookup among 200,000 names reads three blocks. Every block ends in its checksum.
// Internal to image/ext4.
#pragma once

#include <cstdint>
#include <span>

#include "image/ext4/block_writer.h"
#include "image/layer/tree.h"

namespace hull::ext4 {

// Up to here a list is as quick as a tree and one block smaller.
inline constexpr uint64_t kMaxListBlocks = 2;

struct DirectoryShape {
  uint64_t blocks = 0;
  bool indexed = false;  // the inode needs EXT2_INDEX_FL
};

// Throws kTooLarge when the names are more than a two-level tree holds.
DirectoryShape directoryShape(const image::Inode& directory);

// What a directory's entries refer to.
struct Names {
  const image::Tree& tree;
  std::span<const uint32_t> numbers;  // by the tree's inode: the disk's inode
};

// Writes as many blocks as directoryShape() says.
DirectoryShape writeDirectory(const image::Inode& directory, uint32_t self, uint32_t parent,
                              const Names& names, BlockWriter& out, Fingerprint& fingerprint);

}  // namespace hull::ext4
