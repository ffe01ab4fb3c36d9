#include "vmm/virtio/block/disk.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmm/virtio/queue/queue.h"

namespace hull::vmm::virtio {

namespace {

// Moves all of `buffers` (which it consumes) between memory and file. A file that ends before its
// segment does is an error: zeros would hide a truncated layer.
template <typename Transfer>
DiskResult transferAll(std::vector<iovec>& buffers, uint64_t offset, Transfer&& transfer) noexcept {
  size_t first = 0;
  while (first < buffers.size()) {
    const auto count = static_cast<int>(std::min<size_t>(buffers.size() - first, IOV_MAX));
    ssize_t moved = transfer(&buffers[first], count, static_cast<off_t>(offset));
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return DiskResult::kError;
    offset += static_cast<uint64_t>(moved);
    while (moved > 0) {
      iovec& buffer = buffers[first];
      const size_t part = std::min(static_cast<size_t>(moved), buffer.iov_len);
      buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + part;
      buffer.iov_len -= part;
      moved -= static_cast<ssize_t>(part);
      if (buffer.iov_len == 0) ++first;
    }
  }
  return DiskResult::kOk;
}

uint64_t totalBytes(std::span<const iovec> buffers) {
  uint64_t total = 0;
  for (const iovec& buffer : buffers) total += buffer.iov_len;
  return total;
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

DiskResult SegmentReader::read(uint64_t offset, std::span<const iovec> into) noexcept {
  uint64_t done = 0;
  return map_.forEachPiece(offset, totalBytes(into),
                           [&](const DiskSegment* segment, uint64_t file_offset, uint64_t length) {
                             slice_.clear();
                             appendSlice(into, done, length, slice_);
                             done += length;
                             if (segment == nullptr) {
                               for (const iovec& buffer : slice_)
                                 std::memset(buffer.iov_base, 0, buffer.iov_len);
                               return DiskResult::kOk;
                             }
                             return transferAll(slice_, file_offset,
                                                [&](iovec* buffers, int count, off_t at) {
                                                  return preadv(segment->fd, buffers, count, at);
                                                });
                           });
}

DiskResult SegmentWriter::write(uint64_t offset, std::span<const iovec> from) noexcept {
  uint64_t done = 0;
  return map_.forEachPiece(offset, totalBytes(from),
                           [&](const DiskSegment* segment, uint64_t file_offset, uint64_t length) {
                             if (segment == nullptr) return DiskResult::kError;
                             slice_.clear();
                             appendSlice(from, done, length, slice_);
                             done += length;
                             return transferAll(slice_, file_offset,
                                                [&](iovec* buffers, int count, off_t at) {
                                                  return pwritev(segment->fd, buffers, count, at);
                                                });
                           });
}

DiskResult SegmentWriter::flush() noexcept {
  int last = -1;
  for (const DiskSegment& segment : map_.segments()) {
    if (std::exchange(last, segment.fd) == segment.fd) continue;
    if (fdatasync(segment.fd) < 0) return DiskResult::kError;
  }
  return DiskResult::kOk;
}

DiskResult SegmentWriter::allocate(int mode, uint64_t offset, uint64_t length) noexcept {
  return map_.forEachPiece(
      offset, length, [&](const DiskSegment* segment, uint64_t file_offset, uint64_t part) {
        if (segment == nullptr) return DiskResult::kError;
        if (fallocate(segment->fd, mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(file_offset),
                      static_cast<off_t>(part)) == 0) {
          return DiskResult::kOk;
        }
        return errno == EOPNOTSUPP ? DiskResult::kUnsupported : DiskResult::kError;
      });
}

DiskResult SegmentWriter::discard(uint64_t offset, uint64_t length) noexcept {
  return allocate(FALLOC_FL_PUNCH_HOLE, offset, length);
}

DiskResult SegmentWriter::writeZeroes(uint64_t offset, uint64_t length, bool unmap) noexcept {
  return allocate(unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, length);
}

}  // namespace hull::vmm::virtio
