#include "image/ext4/extents.h"

#include <ext2fs/ext3_extents.h>

#include <algorithm>
#include <vector>

namespace hull::ext4 {
namespace {

constexpr size_t kRecordBytes = sizeof(ext3_extent);
static_assert(sizeof(ext3_extent) == 12 && sizeof(ext3_extent_idx) == 12 &&
              sizeof(ext3_extent_header) == 12);
constexpr uint16_t kRootRecords = kInodeBlockBytes / kRecordBytes - 1;
constexpr uint16_t kBlockRecords =
    (kBlockBytes - sizeof(ext3_extent_header) - sizeof(ext3_extent_tail)) / kRecordBytes;

struct Record {
  uint32_t logical;
  uint64_t physical;
  uint16_t length;  // of an extent; an index entry has none
};

std::vector<Record> extentsOf(uint64_t start, uint64_t blocks) {
  std::vector<Record> extents;
  for (uint64_t done = 0; done < blocks; done += kMaxExtentBlocks) {
    const uint64_t length = std::min(kMaxExtentBlocks, blocks - done);
    extents.push_back({low32(done), start + done, low16(length)});
  }
  return extents;
}

void writeNode(std::byte* out, std::span<const Record> records, uint16_t capacity, uint16_t depth) {
  ext3_extent_header header{};
  header.eh_magic = EXT3_EXT_MAGIC;
  header.eh_entries = static_cast<uint16_t>(records.size());
  header.eh_max = capacity;
  header.eh_depth = depth;
  put(out, header);
  for (const Record& record : records) {
    out += kRecordBytes;
    if (depth == 0) {
      ext3_extent extent{};
      extent.ee_block = record.logical;
      extent.ee_len = record.length;
      extent.ee_start = low32(record.physical);
      extent.ee_start_hi = low16(record.physical >> 32);
      put(out, extent);
    } else {
      ext3_extent_idx index{};
      index.ei_block = record.logical;
      index.ei_leaf = low32(record.physical);
      index.ei_leaf_hi = low16(record.physical >> 32);
      put(out, index);
    }
  }
}

}  // namespace

uint64_t extentTreeBlocks(uint64_t run_blocks) {
  uint64_t total = 0;
  uint64_t records = divideUp(run_blocks, kMaxExtentBlocks);
  while (records > kRootRecords) {
    records = divideUp(records, kBlockRecords);
    total += records;
  }
  return total;
}

void writeExtentTree(std::span<std::byte, kInodeBlockBytes> i_block, uint32_t inode,
                     uint64_t run_start, uint64_t run_blocks, BlockWriter& out) {
  std::vector<Record> level = extentsOf(run_start, run_blocks);
  uint16_t depth = 0;
  const uint32_t seed = inodeChecksumSeed(inode);
  for (; level.size() > kRootRecords; ++depth) {
    std::vector<Record> above;
    for (size_t i = 0; i < level.size(); i += kBlockRecords) {
      const size_t count = std::min<size_t>(kBlockRecords, level.size() - i);
      above.push_back({level[i].logical, out.position(), 0});
      const BlockSpan block = out.next();
      writeNode(block.data(), std::span(level).subspan(i, count), kBlockRecords, depth);
      // The tail follows the last record there is room for.
      const size_t tail = sizeof(ext3_extent_header) + kBlockRecords * kRecordBytes;
      put(block.data() + tail, crc32c(seed, block.first(tail)));
    }
    level = std::move(above);
  }
  writeNode(i_block.data(), level, kRootRecords, depth);
}

}  // namespace hull::ext4
