// The fixed choices of our ext4 disks, and the few primitives every writer here needs. Structures,
// hashes and checksums are those of libext2fs; field meanings are cited from the kernel's
// Documentation/filesystems/ext4. Internal to image/ext4. Pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "image/ext4/ext2fs_api.h"
#include "image/layer/index.h"

namespace hull::ext4 {

inline constexpr uint32_t kBlockBytes = 4096;
inline constexpr uint32_t kBlocksPerGroup = 8 * kBlockBytes;  // what one bitmap block can tell
inline constexpr uint64_t kGroupBytes = uint64_t{kBlocksPerGroup} * kBlockBytes;
inline constexpr uint32_t kInodeBytes = 256;
inline constexpr uint32_t kInodesPerBlock = kBlockBytes / kInodeBytes;
inline constexpr uint32_t kInodeExtraBytes = 32;  // of the fields behind the first 128 bytes
inline constexpr uint32_t kDescriptorBytes = 64;
inline constexpr uint32_t kRootInode = EXT2_ROOT_INO;
inline constexpr uint32_t kFirstFreeInode = EXT2_GOOD_OLD_FIRST_INO;  // below it: reserved
inline constexpr uint32_t kMaxLinks = EXT2_LINK_MAX;
static_assert(kBlockBytes == image::kContentAlignment);

// Checksums start from a seed of the superblock's own (INCOMPAT_CSUM_SEED), not from the UUID: so
// everything can be written in one pass and the UUID be made of it at the end.
inline constexpr uint32_t kChecksumSeed = 0x6c6c7548;
// Directory hashes: a name's place must not differ from run to run. A guest that knows the seed
// can make long collision chains in its own image only.
inline constexpr std::array<uint32_t, 4> kHashSeed = {0x68756c6c, 0x2d657874, 0x342d6869,
                                                      0x73746368};

using Block = std::array<std::byte, kBlockBytes>;
using BlockSpan = std::span<std::byte, kBlockBytes>;

constexpr uint64_t divideUp(uint64_t value, uint64_t by) {
  return value / by + (value % by != 0);
}
constexpr uint64_t roundUp(uint64_t value, uint64_t to) {
  return divideUp(value, to) * to;
}
constexpr uint64_t blocksOf(uint64_t bytes) {
  return divideUp(bytes, kBlockBytes);
}

constexpr uint32_t low32(uint64_t value) {
  return static_cast<uint32_t>(value);
}
constexpr uint32_t high32(uint64_t value) {
  return static_cast<uint32_t>(value >> 32);
}
constexpr uint16_t low16(uint64_t value) {
  return static_cast<uint16_t>(value);
}
constexpr uint16_t high16(uint64_t value) {
  return static_cast<uint16_t>(value >> 16);
}

template <typename T>
void put(std::byte* at, const T& value) {
  std::memcpy(at, &value, sizeof value);
}

inline uint32_t crc32c(uint32_t crc, std::span<const std::byte> bytes) {
  return ext2fs_crc32c_le(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}
template <typename T>
uint32_t crc32cOf(uint32_t crc, const T& value) {
  return crc32c(crc, std::as_bytes(std::span(&value, 1)));
}

// Everything that belongs to one inode is checksummed from here: its number and generation (0).
inline uint32_t inodeChecksumSeed(uint32_t inode) {
  return crc32cOf(crc32cOf(kChecksumSeed, inode), uint32_t{0});
}

}  // namespace hull::ext4
