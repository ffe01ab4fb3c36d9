#include "vmm/virtio/block/block.h"

#include <algorithm>

namespace hull::vmm::virtio {

namespace {

constexpr uint64_t kHeaderBytes = sizeof(virtio_blk_outhdr);
constexpr uint32_t kSectorSize = static_cast<uint32_t>(kSectorBytes);
constexpr uint64_t kMaxDataBytes = uint64_t{64} << 20;  // of one request; keeps `written` in range

constexpr uint64_t bit(unsigned number) {
  return uint64_t{1} << number;
}

uint8_t statusOf(DiskResult result) {
  switch (result) {
    case DiskResult::kOk:
      return VIRTIO_BLK_S_OK;
    case DiskResult::kUnsupported:
      return VIRTIO_BLK_S_UNSUPP;
    case DiskResult::kError:
      break;
  }
  return VIRTIO_BLK_S_IOERR;
}

}  // namespace

BlockDevice::BlockDevice(const DiskConfig& config)
    : id_(config.id), size_bytes_(config.size_bytes), map_(config.segments), reader_(map_) {
  config_.capacity = size_bytes_ / kSectorBytes;
  config_.seg_max = kQueueSize - 2;  // beside header and status
  config_.blk_size = kSectorSize;
  if (config.read_only) return;
  writer_ = std::make_unique<SegmentWriter>(map_);
  constexpr uint32_t kPageSectors = 4096 / kSectorSize;
  config_.max_discard_sectors = kMaxDiscardSectors;
  config_.max_discard_seg = 1;
  config_.discard_sector_alignment = kPageSectors;
  config_.max_write_zeroes_sectors = kMaxDiscardSectors;
  config_.max_write_zeroes_seg = 1;
  config_.write_zeroes_may_unmap = 1;
}

uint64_t BlockDevice::features() const noexcept {
  const uint64_t both = bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE);
  if (!writer_) return both | bit(VIRTIO_BLK_F_RO);
  return both | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_DISCARD) |
         bit(VIRTIO_BLK_F_WRITE_ZEROES);
}

void BlockDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  queue_ = std::move(activation.queues[0]);
  notify();
}

void BlockDevice::reset() noexcept {
  queue_.reset();
}

std::vector<QueuePosition> BlockDevice::queuePositions() const noexcept {
  return {queue_->position()};
}

void BlockDevice::notify() noexcept {
  if (!queue_) return;
  const DrainResult result =
      drain(*queue_, [this](Chain&& chain) { return handle(std::move(chain)); });
  settle(*queue_, result, *host_, "block");
}

// False only for a request that has no place for its status: there is no way to fail it.
bool BlockDevice::handle(Chain&& chain) noexcept {
  if (chain.writableBytes() == 0) {
    queue_->push(std::move(chain), 0);
    host_->needsReset("block: request without a status byte");
    return false;
  }
  const uint64_t status_at = chain.writableBytes() - 1;  // §5.2.6: the last writable byte
  const Outcome outcome = perform(chain, status_at);
  const bool reported = chain.writeAs(status_at, outcome.status);
  queue_->push(std::move(chain), reported ? outcome.written + 1 : 0);
  return true;
}

BlockDevice::Outcome BlockDevice::perform(Chain& chain, uint64_t data_in) noexcept {
  const auto header = chain.readAs<virtio_blk_outhdr>(0);
  if (!header) return {VIRTIO_BLK_S_IOERR};
  switch (header->type) {
    case VIRTIO_BLK_T_IN:
      return readSectors(chain, header->sector, data_in);
    case VIRTIO_BLK_T_OUT:
      return writeSectors(chain, header->sector);
    case VIRTIO_BLK_T_FLUSH:
      if (!writer_) return {VIRTIO_BLK_S_UNSUPP};
      return {statusOf(writer_->flush())};
    case VIRTIO_BLK_T_GET_ID:
      return identify(chain, data_in);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
      return trim(chain, header->type);
    default:
      return {VIRTIO_BLK_S_UNSUPP};
  }
}

bool BlockDevice::inDisk(uint64_t sector, uint64_t bytes) const noexcept {
  const uint64_t disk_sectors = size_bytes_ / kSectorBytes;
  return bytes % kSectorBytes == 0 && sector <= disk_sectors &&
         bytes / kSectorBytes <= disk_sectors - sector;
}

BlockDevice::Outcome BlockDevice::readSectors(const Chain& chain, uint64_t sector,
                                              uint64_t bytes) noexcept {
  if (!inDisk(sector, bytes) || bytes > kMaxDataBytes) return {VIRTIO_BLK_S_IOERR};
  slice_.clear();
  appendSlice(chain.writable(), 0, bytes, slice_);
  const DiskResult result = reader_.read(sector * kSectorBytes, slice_);
  const bool ok = result == DiskResult::kOk;
  return {statusOf(result), ok ? static_cast<uint32_t>(bytes) : 0};
}

BlockDevice::Outcome BlockDevice::writeSectors(const Chain& chain, uint64_t sector) noexcept {
  const uint64_t bytes = chain.readableBytes() - kHeaderBytes;
  if (!writer_ || !inDisk(sector, bytes) || bytes > kMaxDataBytes) return {VIRTIO_BLK_S_IOERR};
  slice_.clear();
  appendSlice(chain.readable(), kHeaderBytes, bytes, slice_);
  return {statusOf(writer_->write(sector * kSectorBytes, slice_))};
}

BlockDevice::Outcome BlockDevice::identify(Chain& chain, uint64_t space) noexcept {
  std::array<char, VIRTIO_BLK_ID_BYTES> id{};
  std::copy_n(id_.begin(), std::min(id_.size(), id.size()), id.begin());
  const size_t size = std::min<uint64_t>(space, id.size());
  if (!chain.write(0, std::as_bytes(std::span(id).first(size)))) return {VIRTIO_BLK_S_IOERR};
  return {VIRTIO_BLK_S_OK, static_cast<uint32_t>(size)};
}

// §5.2.6.2: one range per request (max_discard_seg), unknown flags are unsupported, and UNMAP
// means nothing on a discard.
BlockDevice::Outcome BlockDevice::trim(const Chain& chain, uint32_t type) noexcept {
  if (!writer_) return {VIRTIO_BLK_S_IOERR};
  const auto range = chain.readAs<virtio_blk_discard_write_zeroes>(kHeaderBytes);
  if (!range || chain.readableBytes() != kHeaderBytes + sizeof *range) return {VIRTIO_BLK_S_IOERR};
  const bool discard = type == VIRTIO_BLK_T_DISCARD;
  const uint32_t known_flags = discard ? 0 : uint32_t{VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
  if ((range->flags & ~known_flags) != 0) return {VIRTIO_BLK_S_UNSUPP};
  const uint64_t bytes = uint64_t{range->num_sectors} * kSectorBytes;
  if (range->num_sectors == 0 || range->num_sectors > kMaxDiscardSectors ||
      !inDisk(range->sector, bytes)) {
    return {VIRTIO_BLK_S_IOERR};
  }
  const uint64_t offset = range->sector * kSectorBytes;
  return {statusOf(discard ? writer_->discard(offset, bytes)
                           : writer_->writeZeroes(offset, bytes, range->flags != 0))};
}

}  // namespace hull::vmm::virtio
