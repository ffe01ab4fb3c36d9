#include <fmt/core.h>

#include "base/bytes.h"
#include "base/error.h"
#include "image/ext4/stitch.h"

namespace hull::image {
namespace {

constexpr uint32_t kMagic = 0x4b534448;  // "HDSK"
constexpr uint32_t kVersion = 1;
constexpr size_t kMaxSegments = 4096;
constexpr uint64_t kMaxBytes = uint64_t{1} << 62;  // sums of two cannot overflow

[[noreturn]] void refuse(std::string_view why) {
  throw Error(ErrorKind::kCorrupt, fmt::format("read stitched disk: {}", why));
}

bool isAligned(uint64_t bytes) {
  return bytes % kContentAlignment == 0 && bytes <= kMaxBytes;
}

void check(const StitchedDisk& disk) {
  if (!isAligned(disk.disk_bytes) || !isAligned(disk.metadata_bytes)) refuse("bad size");
  uint64_t end = 0;
  for (const StitchedSegment& segment : disk.segments) {
    if (!isAligned(segment.file_offset) || !isAligned(segment.disk_offset) ||
        !isAligned(segment.length) || segment.length == 0)
      refuse("a segment is not aligned");
    if (segment.disk_offset < end) refuse("segments are out of order or overlap");
    end = segment.disk_offset + segment.length;
    if (end > disk.disk_bytes) refuse("a segment lies behind the end of the disk");
    if (segment.layer == StitchedSegment::kMetadata &&
        segment.file_offset + segment.length > disk.metadata_bytes)
      refuse("a segment lies behind the end of the metadata");
  }
}

}  // namespace

std::string encode(const StitchedDisk& disk) {
  ByteWriter out;
  out.u32(kMagic);
  out.u32(kVersion);
  out.u64(disk.disk_bytes);
  out.u64(disk.metadata_bytes);
  out.u32(static_cast<uint32_t>(disk.segments.size()));
  for (const StitchedSegment& segment : disk.segments) {
    out.u32(segment.layer);
    out.u64(segment.file_offset);
    out.u64(segment.disk_offset);
    out.u64(segment.length);
  }
  return out.take();
}

StitchedDisk decodeStitchedDisk(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.u32() != kMagic || in.u32() != kVersion) refuse("not a description of a stitched disk");
  StitchedDisk disk;
  disk.disk_bytes = in.u64();
  disk.metadata_bytes = in.u64();
  const uint32_t count = in.u32();
  if (count > kMaxSegments) refuse("too many segments");
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    StitchedSegment segment;
    segment.layer = in.u32();
    segment.file_offset = in.u64();
    segment.disk_offset = in.u64();
    segment.length = in.u64();
    disk.segments.push_back(segment);
  }
  if (!in.complete()) refuse("it is cut short or too long");
  check(disk);
  return disk;
}

}  // namespace hull::image
