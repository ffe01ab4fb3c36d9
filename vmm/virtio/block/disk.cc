#include "vmm/virtio/block/disk.h"

#include <algorithm>

namespace hull::vmm::virtio {

namespace {

std::vector<int> eachOnce(std::vector<int> files) {
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

}  // namespace

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
  return eachOnce(std::move(files));
}

std::vector<int> SegmentMap::writableFiles() const {
  std::vector<int> files;
  for (const DiskSegment& segment : segments_) {
    if (!segment.read_only) files.push_back(segment.fd);
  }
  return eachOnce(std::move(files));
}

bool SegmentMap::free(const DiskSegment& segment) const noexcept {
  const Piece piece = pieceAt(segment.disk_offset, segment.length);
  return piece.segment == nullptr && piece.length == segment.length;
}

void SegmentMap::add(const DiskSegment& segment) {
  const auto behind =
      std::find_if(segments_.begin(), segments_.end(),
                   [&](const DiskSegment& each) { return each.disk_offset > segment.disk_offset; });
  segments_.insert(behind, segment);
}

void SegmentMap::remove(uint64_t offset, uint64_t length) {
  std::erase_if(segments_, [&](const DiskSegment& each) {
    return each.disk_offset >= offset && each.disk_offset - offset <= length &&
           each.length <= length - (each.disk_offset - offset);
  });
}

}  // namespace hull::vmm::virtio
