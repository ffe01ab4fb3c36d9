#include "vmm/virtio/block/disk.h"

#include <algorithm>

namespace hull::vmm::virtio {

SegmentMap::SegmentMap(std::vector<DiskSegment> segments) : segments_(std::move(segments)) {}

SegmentMap::Piece SegmentMap::pieceAt(uint64_t offset, uint64_t length) const noexcept {
  const auto next = std::upper_bound(
      segments_.begin(), segments_.end(), offset,
      [](uint64_t at, const DiskSegment& segment) { return at < segment.disk_offset; });
  if (next != segments_.begin()) {
    const DiskSegment& segment = *std::prev(next);
    const uint64_t inside = offset - segment.disk_offset;
    if (inside < segment.length) {
      return {&segment, segment.file_offset + inside, std::min(length, segment.length - inside)};
    }
  }
  if (next != segments_.end()) length = std::min(length, next->disk_offset - offset);
  return {nullptr, 0, length};
}

std::vector<int> SegmentMap::files() const {
  std::vector<int> files;
  for (const DiskSegment& segment : segments_) files.push_back(segment.fd);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

}  // namespace hull::vmm::virtio
