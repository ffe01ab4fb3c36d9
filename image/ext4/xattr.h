// Extended attributes on disk (ext4 "Extended Attributes"): first in the rest of the inode, then in
// one block. POSIX ACLs come in the form that system calls use and leave in ext4's own.
// Internal to image/ext4.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "image/ext4/format.h"

namespace hull::ext4 {

using XattrList = std::vector<std::pair<std::string, std::string>>;

inline constexpr size_t kInodeXattrBytes =
    kInodeBytes - EXT2_GOOD_OLD_INODE_SIZE - kInodeExtraBytes;
inline constexpr uint32_t kMaxXattrBlockUsers = EXT2_EXT_ATTR_REFCOUNT_MAX;

struct EncodedXattrs {
  std::array<std::byte, kInodeXattrBytes> in_inode{};
  std::unique_ptr<Block> block;  // null: all are in the inode
};

// Names of namespaces that Linux's ext4 does not have are left out, as they are when a tar is
// unpacked there. Throws kNotSupported for what does not fit, kCorrupt for a malformed ACL; the
// caller adds the path.
EncodedXattrs encodeXattrs(const XattrList& xattrs);

// Completes a block for its place and its number of inodes; gives its checksum.
uint32_t sealXattrBlock(BlockSpan block, uint64_t block_number, uint32_t users);

}  // namespace hull::ext4
