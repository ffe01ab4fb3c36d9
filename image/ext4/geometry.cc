#include "image/ext4/geometry.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"

namespace hull::ext4 {
namespace {

constexpr uint64_t kMaxInodesPerGroup = 8 * kBlockBytes;

// Everything before the windows, if the disk had so many groups.
Geometry packMetadata(uint64_t groups, uint64_t last_inode, uint64_t content_blocks) {
  Geometry geometry;
  geometry.groups = low32(groups);
  geometry.inodes_per_group = low32(roundUp(divideUp(last_inode, groups), kInodesPerBlock));
  geometry.block_bitmaps = 1 + divideUp(groups * kDescriptorBytes, kBlockBytes);
  geometry.inode_bitmaps = geometry.block_bitmaps + groups;
  geometry.inode_tables = geometry.inode_bitmaps + groups;
  geometry.content = geometry.inode_tables + groups * geometry.inodeTableBlocks();
  geometry.metadata_end = geometry.content + content_blocks;
  return geometry;
}

}  // namespace

uint64_t Geometry::blocksInGroup(uint32_t group) const {
  const uint64_t first = uint64_t{group} * kBlocksPerGroup;
  return std::min<uint64_t>(kBlocksPerGroup, blocks - first);
}

Geometry planGeometry(uint64_t last_inode, uint64_t content_blocks,
                      std::span<const uint64_t> window_blocks) {
  constexpr uint64_t kMaxGroups = kMaxDiskBytes / kGroupBytes;
  uint64_t window_groups = 0;
  for (const uint64_t blocks : window_blocks) {
    window_groups += divideUp(blocks, kBlocksPerGroup);
    if (window_groups > kMaxGroups) break;
  }
  // More groups need more bitmaps and tables, which may need more groups: far fewer each time.
  uint64_t front_groups = 1;
  Geometry geometry;
  while (true) {
    const uint64_t groups = front_groups + window_groups;
    if (groups > kMaxGroups) {
      throw Error(
          ErrorKind::kTooLarge,
          fmt::format("plan root disk: it would be larger than {} TiB", kMaxDiskBytes >> 40));
    }
    geometry = packMetadata(groups, last_inode, content_blocks);
    const uint64_t too_few = geometry.inodes_per_group > kMaxInodesPerGroup
                                 ? divideUp(last_inode, kMaxInodesPerGroup) - groups
                                 : 0;
    const uint64_t needed =
        std::max(divideUp(geometry.metadata_end, kBlocksPerGroup), front_groups + too_few);
    if (needed <= front_groups) break;
    front_groups = needed;
  }

  uint64_t next_group = front_groups;
  geometry.blocks = std::max(geometry.metadata_end, (front_groups - 1) * kBlocksPerGroup + 1);
  for (const uint64_t blocks : window_blocks) {
    const uint64_t start = next_group * kBlocksPerGroup;
    geometry.windows.push_back(blocks > 0 ? start : 0);
    if (blocks == 0) continue;
    geometry.blocks = start + blocks;
    next_group += divideUp(blocks, kBlocksPerGroup);
  }
  return geometry;
}

}  // namespace hull::ext4
