// Stitched ext4: an image's root disk made of freshly written metadata plus windows onto the data
// files of its layers (docs/architecture.md, "Stitched disks"). No file content is copied. The same
// tree always gives the same bytes, and `e2fsck -fn` on the assembled disk is clean.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "image/layer/tree.h"

namespace hull::image {

struct StitchedSegment {
  static constexpr uint32_t kMetadata = ~uint32_t{0};
  uint32_t layer = kMetadata;  // whose data file; kMetadata: the metadata file
  uint64_t file_offset = 0;    // all in bytes, multiples of kContentAlignment
  uint64_t disk_offset = 0;
  uint64_t length = 0;
};

struct StitchedDisk {
  uint64_t disk_bytes = 0;
  uint64_t metadata_bytes = 0;            // size of the metadata file
  std::vector<StitchedSegment> segments;  // sorted by disk_offset, not overlapping
};

// Writes the metadata to `metadata_fd` (an empty file) and says how to assemble the disk.
// `data_bytes[i]` is the size of layer i's data file. Throws kTooLarge beyond ext4's limits,
// kNotSupported for what ext4 cannot hold (an xattr too large), naming the path.
StitchedDisk stitch(const Tree& tree, std::span<const uint64_t> data_bytes, int metadata_fd);

std::string encode(const StitchedDisk& disk);
StitchedDisk decodeStitchedDisk(std::string_view bytes);  // throws kCorrupt

}  // namespace hull::image
