// What is behind a block device: a list of segments of files, seen as one disk. Synchronous calls
// on the device thread for now; a device only ever sees these two interfaces, so an asynchronous
// backend changes nothing above them.
//
// Owner: BlockDevice. Device thread only. Nothing throws: the result says what the guest is told.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "vmm/config/vm_config.h"

namespace hull::vmm::virtio {

enum class DiskResult { kOk, kError, kUnsupported };

// Offsets and lengths are bytes inside [0, size), checked by the caller.
class DiskReader {
 public:
  virtual ~DiskReader() = default;
  virtual DiskResult read(uint64_t offset, std::span<const iovec> into) noexcept = 0;
};

// Exists for writable disks only: a read-only disk has no code path that could write.
class DiskWriter {
 public:
  virtual ~DiskWriter() = default;
  virtual DiskResult write(uint64_t offset, std::span<const iovec> from) noexcept = 0;
  virtual DiskResult flush() noexcept = 0;
  virtual DiskResult discard(uint64_t offset, uint64_t length) noexcept = 0;
  // `unmap`: the space may be given back to the host.
  virtual DiskResult writeZeroes(uint64_t offset, uint64_t length, bool unmap) noexcept = 0;
};

// The segments of one disk, for both directions. Between segments reads give zeros and writes fail.
class SegmentMap {
 public:
  explicit SegmentMap(std::vector<DiskSegment> segments);

  // Splits [offset, offset + length) at segment borders and calls visit(segment or nullptr,
  // position in the segment's file, length) for each piece, until one returns other than kOk.
  template <typename Visit>
  DiskResult forEachPiece(uint64_t offset, uint64_t length, Visit&& visit) const noexcept {
    while (length > 0) {
      const Piece piece = pieceAt(offset, length);
      const DiskResult result = visit(piece.segment, piece.file_offset, piece.length);
      if (result != DiskResult::kOk) return result;
      offset += piece.length;
      length -= piece.length;
    }
    return DiskResult::kOk;
  }
  const std::vector<DiskSegment>& segments() const { return segments_; }

 private:
  struct Piece {
    const DiskSegment* segment;
    uint64_t file_offset;
    uint64_t length;
  };
  Piece pieceAt(uint64_t offset, uint64_t length) const noexcept;

  std::vector<DiskSegment> segments_;  // sorted by disk_offset, no overlap (vm_config.h)
};

class SegmentReader final : public DiskReader {
 public:
  explicit SegmentReader(const SegmentMap& map) : map_(map) {}
  DiskResult read(uint64_t offset, std::span<const iovec> into) noexcept override;

 private:
  const SegmentMap& map_;
  std::vector<iovec> slice_;
};

class SegmentWriter final : public DiskWriter {
 public:
  explicit SegmentWriter(const SegmentMap& map) : map_(map) {}
  DiskResult write(uint64_t offset, std::span<const iovec> from) noexcept override;
  DiskResult flush() noexcept override;
  DiskResult discard(uint64_t offset, uint64_t length) noexcept override;
  DiskResult writeZeroes(uint64_t offset, uint64_t length, bool unmap) noexcept override;

 private:
  DiskResult allocate(int mode, uint64_t offset, uint64_t length) noexcept;

  const SegmentMap& map_;
  std::vector<iovec> slice_;
};

}  // namespace hull::vmm::virtio
