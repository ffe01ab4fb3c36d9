#include "image/ext4/groups.h"

#include <algorithm>
#include <charconv>
#include <cstddef>

#include "base/fd.h"

namespace hull::ext4 {
namespace {

void setBits(Block& bitmap, uint64_t from, uint64_t to) {
  for (; from < to && from % 8 != 0; ++from) bitmap[from / 8] |= std::byte(1 << from % 8);
  const uint64_t whole_end = std::max(from, to / 8 * 8);
  if (whole_end > from) std::memset(&bitmap[from / 8], 0xff, (whole_end - from) / 8);
  for (from = whole_end; from < to; ++from) bitmap[from / 8] |= std::byte(1 << from % 8);
}

// Goes through the groups in order, and through the runs of used blocks beside them.
class GroupWriter {
 public:
  GroupWriter(const Geometry& geometry, const Usage& usage, int fd)
      : geometry_(geometry), usage_(usage), fd_(fd) {
    descriptors_.resize(geometry.groups);
  }

  void write() {
    for (uint32_t group = 0; group < geometry_.groups; ++group) {
      ext4_group_desc& descriptor = descriptors_[group];
      placeParts(group, descriptor);
      writeBlockBitmap(group, descriptor);
      writeInodeBitmap(group, descriptor);
      // ext4_group_desc_csum(): seed, group number, the descriptor with a checksum of zero.
      descriptor.bg_checksum = low16(crc32cOf(crc32cOf(kChecksumSeed, group), descriptor));
    }
    pwriteFull(fd_, std::as_bytes(std::span(descriptors_)), kBlockBytes);
  }

  uint64_t freeBlocks() const { return free_blocks_; }

 private:
  void placeParts(uint32_t group, ext4_group_desc& descriptor) const {
    const uint64_t block_bitmap = geometry_.block_bitmaps + group;
    const uint64_t inode_bitmap = geometry_.inode_bitmaps + group;
    const uint64_t inode_table =
        geometry_.inode_tables + uint64_t{group} * geometry_.inodeTableBlocks();
    descriptor.bg_block_bitmap = low32(block_bitmap);
    descriptor.bg_block_bitmap_hi = high32(block_bitmap);
    descriptor.bg_inode_bitmap = low32(inode_bitmap);
    descriptor.bg_inode_bitmap_hi = high32(inode_bitmap);
    descriptor.bg_inode_table = low32(inode_table);
    descriptor.bg_inode_table_hi = high32(inode_table);
    descriptor.bg_flags = EXT2_BG_INODE_ZEROED;
  }

  // Marks what [start, start + blocks) has in the group; gives how many blocks that is.
  static uint64_t mark(Block& bitmap, uint64_t group_start, const BlockRun& run) {
    const uint64_t from = std::max(run.start, group_start);
    const uint64_t to = std::min(run.start + run.blocks, group_start + kBlocksPerGroup);
    if (from >= to) return 0;
    setBits(bitmap, from - group_start, to - group_start);
    return to - from;
  }

  void writeBlockBitmap(uint32_t group, ext4_group_desc& descriptor) {
    const uint64_t start = uint64_t{group} * kBlocksPerGroup;
    const uint64_t end = start + kBlocksPerGroup;
    bitmap_.fill(std::byte{0});
    uint64_t used = mark(bitmap_, start, {0, geometry_.metadata_end});
    while (next_run_ < usage_.runs.size() && usage_.runs[next_run_].start < end) {
      const BlockRun& run = usage_.runs[next_run_];
      used += mark(bitmap_, start, run);
      if (run.start + run.blocks > end) break;  // goes on in the next group
      ++next_run_;
    }
    const uint64_t size = geometry_.blocksInGroup(group);
    const uint64_t free = size - used;
    free_blocks_ += free;
    descriptor.bg_free_blocks_count = low16(free);
    descriptor.bg_free_blocks_count_hi = high16(free);
    // The last group's bitmap must exist: it says where the disk ends.
    if (used == 0 && group + 1 < geometry_.groups) {
      descriptor.bg_flags |= EXT2_BG_BLOCK_UNINIT;
      return;
    }
    setBits(bitmap_, size, kBlocksPerGroup);
    const uint32_t checksum = crc32c(kChecksumSeed, bitmap_);
    descriptor.bg_block_bitmap_csum_lo = low16(checksum);
    descriptor.bg_block_bitmap_csum_hi = high16(checksum);
    pwriteFull(fd_, bitmap_, (geometry_.block_bitmaps + group) * kBlockBytes);
  }

  void writeInodeBitmap(uint32_t group, ext4_group_desc& descriptor) {
    const uint64_t per_group = geometry_.inodes_per_group;
    const uint64_t before = group * per_group;
    const uint64_t used =
        usage_.last_inode > before ? std::min(per_group, usage_.last_inode - before) : 0;
    const uint64_t free = per_group - used;
    descriptor.bg_free_inodes_count = low16(free);
    descriptor.bg_free_inodes_count_hi = high16(free);
    descriptor.bg_itable_unused = low16(free);
    descriptor.bg_itable_unused_hi = high16(free);
    descriptor.bg_used_dirs_count = low16(usage_.group_directories[group]);
    descriptor.bg_used_dirs_count_hi = high16(usage_.group_directories[group]);
    if (used == 0) {
      descriptor.bg_flags |= EXT2_BG_INODE_UNINIT;
      return;
    }
    bitmap_.fill(std::byte{0});
    setBits(bitmap_, 0, used);
    setBits(bitmap_, per_group, 8 * kBlockBytes);
    const uint32_t checksum = crc32c(kChecksumSeed, std::span(bitmap_).first(per_group / 8));
    descriptor.bg_inode_bitmap_csum_lo = low16(checksum);
    descriptor.bg_inode_bitmap_csum_hi = high16(checksum);
    pwriteFull(fd_, bitmap_, (geometry_.inode_bitmaps + group) * kBlockBytes);
  }

  const Geometry& geometry_;
  const Usage& usage_;
  int fd_;
  std::vector<ext4_group_desc> descriptors_;
  Block bitmap_;
  size_t next_run_ = 0;
  uint64_t free_blocks_ = 0;
};
static_assert(sizeof(ext4_group_desc) == kDescriptorBytes);

// A UUID of version 8 (RFC 9562: made by the maker's own rule).
void putUuid(uint8_t (&uuid)[16], std::string_view hex) {
  for (size_t i = 0; i < sizeof uuid; ++i)
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, uuid[i], 16);
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x80);
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
}

void setFeatures(ext2_super_block& super) {
  super.s_feature_compat = EXT2_FEATURE_COMPAT_DIR_INDEX | EXT4_FEATURE_COMPAT_SPARSE_SUPER2 |
                           EXT2_FEATURE_COMPAT_EXT_ATTR;
  super.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                             EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG |
                             EXT4_FEATURE_INCOMPAT_CSUM_SEED;
  super.s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
                              EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
                              EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
                              EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
}

ext2_super_block makeSuperblock(const Geometry& geometry, uint32_t last_inode,
                                uint64_t free_blocks) {
  ext2_super_block super{};
  super.s_magic = EXT2_SUPER_MAGIC;
  super.s_rev_level = EXT2_DYNAMIC_REV;
  super.s_state = EXT2_VALID_FS;
  super.s_errors = EXT2_ERRORS_DEFAULT;
  super.s_max_mnt_count = -1;
  super.s_creator_os = EXT2_OS_LINUX;
  setFeatures(super);

  super.s_inodes_count = geometry.groups * geometry.inodes_per_group;
  super.s_free_inodes_count = super.s_inodes_count - last_inode;
  super.s_inodes_per_group = geometry.inodes_per_group;
  super.s_first_ino = kFirstFreeInode;
  super.s_inode_size = kInodeBytes;
  super.s_min_extra_isize = super.s_want_extra_isize = kInodeExtraBytes;

  super.s_blocks_count = low32(geometry.blocks);
  super.s_blocks_count_hi = high32(geometry.blocks);
  super.s_free_blocks_count = low32(free_blocks);
  super.s_free_blocks_hi = high32(free_blocks);
  super.s_log_block_size = super.s_log_cluster_size = 2;  // 4096 = 1024 << 2
  super.s_blocks_per_group = super.s_clusters_per_group = kBlocksPerGroup;
  super.s_desc_size = kDescriptorBytes;
  super.s_log_groups_per_flex = 31;  // one flexible group: tables may lie anywhere

  super.s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
  super.s_def_hash_version = EXT2_HASH_HALF_MD4;
  super.s_flags = EXT2_FLAGS_UNSIGNED_HASH;
  std::copy(kHashSeed.begin(), kHashSeed.end(), super.s_hash_seed);
  super.s_checksum_type = EXT2_CRC32C_CHKSUM;
  super.s_checksum_seed = kChecksumSeed;
  return super;
}

}  // namespace

void writeGroups(const Geometry& geometry, const Usage& usage, std::string_view fingerprint,
                 int metadata_fd) {
  GroupWriter groups(geometry, usage, metadata_fd);
  groups.write();
  ext2_super_block super = makeSuperblock(geometry, usage.last_inode, groups.freeBlocks());
  putUuid(super.s_uuid, fingerprint);
  super.s_checksum =
      crc32c(~uint32_t{0},
             std::as_bytes(std::span(&super, 1)).first(offsetof(ext2_super_block, s_checksum)));
  pwriteFull(metadata_fd, std::as_bytes(std::span(&super, 1)), SUPERBLOCK_OFFSET);
}

}  // namespace hull::ext4
