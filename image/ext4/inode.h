// One record of the inode table (ext4 "Inode Table"). Internal to image/ext4.
#pragma once

#include <cstdint>
#include <span>

#include "image/ext4/extents.h"
#include "image/ext4/xattr.h"
#include "image/layer/tree.h"

namespace hull::ext4 {

// Symlinks up to here are kept in the inode, longer ones up to the other in a block.
inline constexpr size_t kMaxFastSymlinkBytes = kInodeBlockBytes - 1;
inline constexpr size_t kMaxSymlinkBytes = kBlockBytes - 1;

// The time stamps ext4 can hold and e2fsck does not take for a mistake: 1901 to 2310. Others are
// moved to the nearer end, as the kernel does.
inline constexpr int64_t kMinTime = -(int64_t{1} << 31);
inline constexpr int64_t kMaxTime = (int64_t{3} << 32) - (int64_t{1} << 31) - 1;

struct InodeRecord {
  uint32_t number = 0;
  uint32_t links = 0;
  uint64_t size = 0;
  uint64_t blocks = 0;  // content, extent tree and xattr block
  uint32_t flags = 0;   // EXT4_EXTENTS_FL, EXT2_INDEX_FL
  std::array<std::byte, kInodeBlockBytes> i_block{};
  std::array<std::byte, kInodeXattrBytes> xattrs{};
  uint64_t xattr_block = 0;
};

// A device's number in i_block. Throws kNotSupported beyond 12 bits of major, 20 of minor.
std::array<std::byte, kInodeBlockBytes> deviceBlock(const image::Inode& device);

// Encodes into `out` (zeros) and gives the record's checksum.
uint32_t putInode(std::span<std::byte, kInodeBytes> out, const InodeRecord& record,
                  const image::Inode& inode);

}  // namespace hull::ext4
