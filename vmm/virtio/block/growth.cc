// BlockDevice: a disk that changes while it runs.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "vmm/virtio/block/block.h"

namespace hull::vmm::virtio {

namespace {

[[noreturn]] void refuse(const std::string& id, const std::string& cause) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("grow disk {}: {}", id, cause));
}

}  // namespace

void BlockDevice::readConfig(uint64_t offset, std::span<std::byte> into) const noexcept {
  virtio_blk_config config = config_;
  config.capacity = sizeBytes() / kSectorBytes;
  copyConfig(std::as_bytes(std::span(&config, 1)), offset, into);
}

void BlockDevice::grow(const DiskGrowth& growth, std::vector<Fd> files) {
  if (read_only_) refuse(id_, "it is read-only");
  if (files.size() != growth.segments.size()) refuse(id_, "not a descriptor for each segment");
  if (growth.size_bytes < sizeBytes()) refuse(id_, "the new size is less than it has");
  if (grown_files_.size() + files.size() > kMaxGrownSegments) refuse(id_, "too many segments");
  for (size_t i = 0; i < files.size(); ++i) {
    const DiskSegment& segment = growth.segments[i];
    if (segment.disk_offset < first_bytes_ || !map_.free(segment)) {
      refuse(id_, "a segment where there is one already");
    }
    requireMode(files[i].get(), segment.read_only, id_);
  }
  for (size_t i = 0; i < files.size(); ++i) {
    DiskSegment segment = growth.segments[i];
    segment.fd = files[i].get();
    map_.add(segment);
    grown_files_.push_back(std::move(files[i]));
  }
  files_ = map_.writableFiles();
  const bool larger = growth.size_bytes > sizeBytes();
  size_bytes_.store(growth.size_bytes, std::memory_order_relaxed);
  if (larger && !queues_.empty()) host_->configChanged();
}

void BlockDevice::cut(uint64_t offset, uint64_t length) {
  if (offset < first_bytes_) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("cut disk {}: what it began with stays", id_));
  }
  engine_.drain();
  map_.remove(offset, length);
  files_ = map_.writableFiles();
  const std::vector<int> used = map_.files();
  std::erase_if(grown_files_, [&](const Fd& file) {
    return !std::binary_search(used.begin(), used.end(), file.get());
  });
}

}  // namespace hull::vmm::virtio
