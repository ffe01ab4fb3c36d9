#include "daemon/vm/disk_growth.h"

#include <fcntl.h>

#include <algorithm>

#include "daemon/vm/vm_core.h"

namespace hull::engine {

namespace {

uint64_t aligned(uint64_t offset) {
  return (offset + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

}  // namespace

Vm::AddedDisks placesOf(const std::vector<AddedDisk>& disks, uint64_t disk_bytes) {
  Vm::AddedDisks places;
  places.offset = aligned(disk_bytes);
  uint64_t end = places.offset;
  for (const AddedDisk& disk : disks) {
    const uint64_t start = aligned(end);
    places.parts.push_back({start, disk.disk.disk_bytes, disk.read_only});
    end = start + disk.disk.disk_bytes;
  }
  places.length = aligned(end) - places.offset;
  return places;
}

std::vector<Growth> growthsOf(const AddedDisk& disk, uint64_t offset, const Vm::AddedDisks& all) {
  std::vector<Growth> growths;
  for (const auto& segment : disk.disk.segments) {
    if (growths.empty() || growths.back().files.size() == vmm::kMaxSegmentsPerGrowth) {
      Growth& next = growths.emplace_back();
      next.change.disk = kWritableDiskId;
      next.change.size_bytes = all.offset + all.length;
      next.change.read_only = disk.read_only;
    }
    Growth& growth = growths.back();
    const auto number = static_cast<int>(growth.files.size());
    growth.files.push_back(openFile(segment.path, disk.read_only ? O_RDONLY : O_RDWR));
    growth.change.segments.push_back({number, segment.file_offset, offset + segment.disk_offset,
                                      segment.length, disk.read_only});
  }
  return growths;
}

std::vector<int> numbersOf(const std::vector<Fd>& files) {
  std::vector<int> numbers;
  for (const Fd& file : files) numbers.push_back(file.get());
  return numbers;
}

}  // namespace hull::engine
