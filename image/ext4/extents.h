// Extent trees (ext4 "Extent Tree"): one contiguous run of blocks, mapped from an inode. Runs come
// in extents of at most kMaxExtentBlocks; four fit in the inode, more go to blocks of their own.
// Internal to image/ext4.
#pragma once

#include <cstdint>
#include <span>

#include "image/ext4/block_writer.h"

namespace hull::ext4 {

inline constexpr uint64_t kMaxExtentBlocks = 32768;
inline constexpr size_t kInodeBlockBytes = 60;  // i_block
inline constexpr uint64_t kMaxFileBlocks = (uint64_t{1} << 32) - 1;

// How many blocks of its own the tree of a run needs.
uint64_t extentTreeBlocks(uint64_t run_blocks);

// Writes the tree's root into `i_block` and its other nodes to `out`, as many as said above.
void writeExtentTree(std::span<std::byte, kInodeBlockBytes> i_block, uint32_t inode,
                     uint64_t run_start, uint64_t run_blocks, BlockWriter& out);

}  // namespace hull::ext4
