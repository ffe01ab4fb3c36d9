#include "image/ext4/inode.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"

namespace hull::ext4 {
namespace {

using image::EntryType;

uint16_t typeBits(EntryType type) {
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

struct TimeStamp {
  uint32_t seconds;  // the low half of a signed number
  uint32_t extra;    // nanoseconds << 2 | how many times 2^32 seconds to add
};

TimeStamp timeStamp(int64_t seconds, uint32_t nanoseconds) {
  constexpr uint32_t kMaxNanoseconds = 999'999'999;
  const int64_t clamped = std::clamp(seconds, kMinTime, kMaxTime);
  const auto low = static_cast<int32_t>(static_cast<uint32_t>(clamped & 0xffffffff));
  const auto epoch = static_cast<uint32_t>((clamped - low) >> 32);
  return {static_cast<uint32_t>(low), std::min(nanoseconds, kMaxNanoseconds) << 2 | epoch};
}

}  // namespace

std::array<std::byte, kInodeBlockBytes> deviceBlock(const image::Inode& device) {
  constexpr uint32_t kMaxMajor = (1 << 12) - 1;
  constexpr uint32_t kMaxMinor = (1 << 20) - 1;
  const uint32_t major = device.device_major;
  const uint32_t minor = device.device_minor;
  if (major > kMaxMajor || minor > kMaxMinor) {
    throw Error(ErrorKind::kNotSupported,
                fmt::format("device number {}:{} is more than Linux has", major, minor));
  }
  std::array<std::byte, kInodeBlockBytes> block{};
  // The old form where it is enough, as the kernel writes it (old_encode_dev, new_encode_dev).
  if (major < 256 && minor < 256)
    put(block.data(), major << 8 | minor);
  else
    put(block.data() + 4, (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12);
  return block;
}

uint32_t putInode(std::span<std::byte, kInodeBytes> out, const InodeRecord& record,
                  const image::Inode& inode) {
  const TimeStamp time = timeStamp(inode.mtime_seconds, inode.mtime_nanoseconds);
  const uint64_t sectors = record.blocks * (kBlockBytes / 512);
  ext2_inode_large raw{};
  raw.i_mode = static_cast<uint16_t>(typeBits(inode.type) | (inode.mode & 07777));
  raw.i_uid = low16(inode.uid);
  raw.i_uid_high = high16(inode.uid);
  raw.i_gid = low16(inode.gid);
  raw.i_gid_high = high16(inode.gid);
  raw.i_size = low32(record.size);
  raw.i_size_high = high32(record.size);
  raw.i_links_count = static_cast<uint16_t>(record.links);
  raw.i_blocks = low32(sectors);
  raw.osd2.linux2.l_i_blocks_hi = low16(sectors >> 32);
  raw.i_flags = record.flags;
  raw.i_file_acl = low32(record.xattr_block);
  raw.osd2.linux2.l_i_file_acl_high = low16(record.xattr_block >> 32);
  raw.i_extra_isize = kInodeExtraBytes;
  raw.i_atime = raw.i_ctime = raw.i_mtime = raw.i_crtime = time.seconds;
  raw.i_atime_extra = raw.i_ctime_extra = raw.i_mtime_extra = raw.i_crtime_extra = time.extra;
  std::memcpy(raw.i_block, record.i_block.data(), record.i_block.size());
  put(out.data(), raw);
  std::memcpy(out.data() + EXT2_GOOD_OLD_INODE_SIZE + kInodeExtraBytes, record.xattrs.data(),
              record.xattrs.size());

  const uint32_t checksum = crc32c(inodeChecksumSeed(record.number), out);
  put(out.data() + offsetof(ext2_inode_large, i_checksum_lo), low16(checksum));
  put(out.data() + offsetof(ext2_inode_large, i_checksum_hi), high16(checksum));
  return checksum;
}

}  // namespace hull::ext4
