// What describes the disk to those who mount or check it: bitmaps, group descriptors and the
// superblock, written last. Internal to image/ext4.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "image/ext4/geometry.h"

namespace hull::ext4 {

struct BlockRun {
  uint64_t start = 0;
  uint64_t blocks = 0;
};

struct Usage {
  uint32_t last_inode = 0;                      // all up to here are in use
  std::span<const BlockRun> runs;               // used blocks of windows; sorted, not overlapping
  std::span<const uint32_t> group_directories;  // by group: how many directories
};

// `fingerprint`: at least 32 hex digits that the UUID is made of.
void writeGroups(const Geometry& geometry, const Usage& usage, std::string_view fingerprint,
                 int metadata_fd);

}  // namespace hull::ext4
