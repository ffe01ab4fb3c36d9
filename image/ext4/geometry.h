// Where everything lies on the disk. All metadata comes first, packed (flex_bg allows tables to be
// anywhere):
//
//   superblock │ descriptors │ block bitmaps │ inode bitmaps │ inode tables │ directories, … │
//
// then, each from a block group's boundary, the windows onto the layers' data files. Parts that
// belong to groups without inodes or used blocks are never written: they are marked as
// uninitialised and stay holes of the metadata file. Internal to image/ext4. Pure values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "image/ext4/format.h"

namespace hull::ext4 {

inline constexpr uint64_t kMaxDiskBytes = uint64_t{16} << 40;

struct Geometry {
  uint32_t groups = 0;
  uint32_t inodes_per_group = 0;
  uint64_t blocks = 0;  // of the whole disk

  // First blocks of the parts; each part ends where the next begins.
  uint64_t block_bitmaps = 0;
  uint64_t inode_bitmaps = 0;
  uint64_t inode_tables = 0;
  uint64_t content = 0;       // directories, symlinks, extent trees, xattrs
  uint64_t metadata_end = 0;  // also the size of the metadata file

  std::vector<uint64_t> windows;  // first block of each; 0 for a window of no blocks

  uint64_t blocksInGroup(uint32_t group) const;
  uint32_t inodeTableBlocks() const { return inodes_per_group / kInodesPerBlock; }
};

// For inodes up to number `last_inode`, so many blocks of content, and windows of so many blocks.
// Throws kTooLarge.
Geometry planGeometry(uint64_t last_inode, uint64_t content_blocks,
                      std::span<const uint64_t> window_blocks);

}  // namespace hull::ext4
