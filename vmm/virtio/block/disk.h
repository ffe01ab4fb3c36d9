// What is behind a block device: a list of segments of files, seen as one disk. Pure arithmetic;
// the reading and writing is io_engine.h's.
//
// Owner: BlockDevice. Device thread.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/config/vm_config.h"

namespace hull::vmm::virtio {

class SegmentMap {
 public:
  explicit SegmentMap(std::vector<DiskSegment> segments);

  // Splits [offset, offset + length) at segment borders and calls visit(segment or nullptr,
  // position in the segment's file, length) for each piece, until one returns false: the result.
  // The range lies inside of the disk, by the caller's check.
  template <typename Visit>
  bool forEachPiece(uint64_t offset, uint64_t length, Visit&& visit) const noexcept {
    while (length > 0) {
      const Piece piece = pieceAt(offset, length);
      if (!visit(piece.segment, piece.file_offset, piece.length)) return false;
      offset += piece.length;
      length -= piece.length;
    }
    return true;
  }
  std::vector<int> writableFiles() const;  // each once
  std::vector<int> files() const;          // each once
  size_t size() const { return segments_.size(); }
  bool free(const DiskSegment& segment) const noexcept;  // overlaps no other
  void add(const DiskSegment& segment);                  // into a free place
  void remove(uint64_t offset, uint64_t length);         // those that lie in there wholly

 private:
  struct Piece {
    const DiskSegment* segment;
    uint64_t file_offset;
    uint64_t length;
  };
  Piece pieceAt(uint64_t offset, uint64_t length) const noexcept;

  std::vector<DiskSegment> segments_;  // sorted by disk_offset, no overlap (vm_config.h)
};

}  // namespace hull::vmm::virtio
