#include "vmm/virtio/block/block.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"

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

void BlockDevice::requireMode(int fd, bool read_only, const std::string& id) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) throw sysError(fmt::format("set up disk {}", id));
  const int mode = flags & O_ACCMODE;
  if (read_only ? mode == O_RDONLY : mode == O_RDWR) return;
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("set up disk {}: descriptor {} {}", id, fd,
                          read_only ? "can write, but the disk is read-only (open it O_RDONLY)"
                                    : "is not for reading and writing (open it O_RDWR)"));
}

BlockDevice::BlockDevice(const DiskConfig& config, uint32_t vcpus, IoEngine& engine,
                         EventLoop& loop)
    : id_(config.id),
      first_bytes_(config.size_bytes),
      size_bytes_(config.size_bytes),
      read_only_(config.read_only),
      map_(config.segments),
      files_(map_.files()),
      engine_(engine),
      loop_(loop),
      queue_sizes_(std::clamp(vcpus, uint32_t{1}, kMaxQueues), kQueueSize) {
  for (const int fd : files_) requireMode(fd, read_only_, id_);
  setLimits(config.read, config.write);
  config_.capacity = first_bytes_ / kSectorBytes;
  config_.seg_max = kQueueSize - 2;  // beside header and status
  config_.blk_size = kSectorSize;
  config_.num_queues = static_cast<uint16_t>(queue_sizes_.size());
  if (read_only_) return;
  constexpr uint32_t kPageSectors = 4096 / kSectorSize;
  config_.max_discard_sectors = kMaxDiscardSectors;
  config_.max_discard_seg = 1;
  config_.discard_sector_alignment = kPageSectors;
  config_.max_write_zeroes_sectors = kMaxDiscardSectors;
  config_.max_write_zeroes_seg = 1;
  config_.write_zeroes_may_unmap = 1;
}

BlockDevice::~BlockDevice() {
  reset();
}

uint64_t BlockDevice::features() const noexcept {
  uint64_t features = bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE);
  if (queue_sizes_.size() > 1) features |= bit(VIRTIO_BLK_F_MQ);
  if (read_only_) return features | bit(VIRTIO_BLK_F_RO);
  return features | bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_DISCARD) |
         bit(VIRTIO_BLK_F_WRITE_ZEROES);
}

void BlockDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  queues_ = std::move(activation.queues);
  notify();
}

// The driver may use its memory for something else as soon as this returns, so what is under way
// must end first.
void BlockDevice::reset() noexcept {
  engine_.drain();
  for (Lane& lane : lanes_) {
    for (Request* request : std::exchange(lane.parked, {})) {
      request->chain.reset();  // the queues go, too
      idle_.push_back(request);
    }
  }
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  queues_.clear();
}

// What waits for its turn is done at once: no limit outlasts a snapshot's wait.
void BlockDevice::quiesce() noexcept {
  for (Lane& lane : lanes_) {
    for (Request* request : std::exchange(lane.parked, {})) begin(*request);
  }
  engine_.drain();
}

void BlockDevice::setLimits(const IoLimits& read, const IoLimits& write) noexcept {
  lanes_[kReading].throttle.configure(read);
  lanes_[kWriting].throttle.configure(write);
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  releaseParked();
}

std::vector<QueuePosition> BlockDevice::queuePositions() const noexcept {
  std::vector<QueuePosition> positions;
  for (const Queue& queue : queues_) positions.push_back(queue.position());
  return positions;
}

void BlockDevice::notify() noexcept {
  for (size_t i = 0; i < queues_.size(); ++i) {
    const DrainResult result =
        drain(queues_[i], [this, i](Chain&& chain) { return handle(i, std::move(chain)); });
    settle(queues_[i], result, *host_, "block");
  }
  releaseParked();
  onIoBatchEnd();
}

// False only for a request that has no place for its status: there is no way to fail it.
bool BlockDevice::handle(size_t queue, Chain&& chain) noexcept {
  if (chain.writableBytes() == 0) {
    queues_[queue].push(std::move(chain), 0);
    host_->needsReset("block: request without a status byte");
    return false;
  }
  if (idle_.empty()) idle_.push_back(&requests_.emplace_back());
  Request& request = *idle_.back();
  idle_.pop_back();
  request.queue = queue;
  request.status_at = chain.writableBytes() - 1;
  request.chain.emplace(std::move(chain));
  admit(request);
  return true;
}

// Through, or into the lane of its direction. What moves no data is never held up.
void BlockDevice::admit(Request& request) noexcept {
  const auto header = request.chain->readAs<virtio_blk_outhdr>(0);
  if (!header) {
    request.status = VIRTIO_BLK_S_IOERR;
    return finish(request);
  }
  request.header = *header;
  const bool reads = header->type == VIRTIO_BLK_T_IN;
  const bool writes = header->type == VIRTIO_BLK_T_OUT || header->type == VIRTIO_BLK_T_DISCARD ||
                      header->type == VIRTIO_BLK_T_WRITE_ZEROES;
  if (!reads && !writes) return begin(request);
  Lane& lane = lanes_[reads ? kReading : kWriting];
  if (!lane.throttle.limited()) return begin(request);
  lane.parked.push_back(&request);
}

void BlockDevice::releaseParked() noexcept {
  for (Lane& lane : lanes_) {
    while (!lane.parked.empty() && lane.throttle.ready()) {
      Request& request = *lane.parked.front();
      lane.parked.pop_front();
      const bool reads = request.header.type == VIRTIO_BLK_T_IN;
      lane.throttle.take(reads ? request.status_at : request.chain->readableBytes());
      begin(request);
    }
  }
  engine_.kick();
  waitForTokens();
}

void BlockDevice::waitForTokens() noexcept {
  if (timer_) return;
  std::optional<std::chrono::milliseconds> wait;
  for (Lane& lane : lanes_) {
    if (lane.parked.empty()) continue;
    const auto needed = lane.throttle.wait();
    wait = std::min(wait.value_or(needed), needed);
  }
  if (!wait) return;
  timer_ = loop_.after(*wait, [this] {
    timer_.reset();
    releaseParked();
    onIoBatchEnd();  // for what was answered without any operation
  });
}

void BlockDevice::begin(Request& request) noexcept {
  request.written = 0;
  request.operations.clear();
  request.status = plan(request);
  if (request.status != VIRTIO_BLK_S_OK) request.operations.clear();
  request.left = request.operations.size();
  if (request.left == 0) return finish(request);
  for (IoOperation& operation : request.operations) {
    operation.client = this;
    operation.request = &request;
    engine_.submit(operation);
  }
}

// Everything is checked before the first operation begins.
uint8_t BlockDevice::plan(Request& request) noexcept {
  switch (request.header.type) {
    case VIRTIO_BLK_T_IN:
      return planRead(request, request.header.sector);
    case VIRTIO_BLK_T_OUT:
      return planWrite(request, request.header.sector);
    case VIRTIO_BLK_T_FLUSH:
      return planFlush(request);
    case VIRTIO_BLK_T_GET_ID:
      return identify(request);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
      return planTrim(request, request.header.type);
    default:
      return VIRTIO_BLK_S_UNSUPP;
  }
}

bool BlockDevice::inDisk(uint64_t sector, uint64_t bytes) const noexcept {
  const uint64_t disk_sectors = sizeBytes() / kSectorBytes;
  return bytes % kSectorBytes == 0 && sector <= disk_sectors &&
         bytes / kSectorBytes <= disk_sectors - sector;
}

// Between the segments it began with there are zeros.
uint8_t BlockDevice::planRead(Request& request, uint64_t sector) noexcept {
  const uint64_t bytes = request.status_at;
  if (!inDisk(sector, bytes) || bytes > kMaxDataBytes) return VIRTIO_BLK_S_IOERR;
  uint64_t done = 0;
  const bool complete =
      map_.forEachPiece(sector * kSectorBytes, bytes,
                        [&](const DiskSegment* segment, uint64_t offset, uint64_t length) {
                          std::vector<iovec> part;
                          appendSlice(request.chain->writable(), done, length, part);
                          done += length;
                          if (segment != nullptr) {
                            request.operations.push_back({IoOperation::Kind::kRead, segment->fd,
                                                          offset, 0, std::move(part)});
                            return true;
                          }
                          if (sector * kSectorBytes + done > first_bytes_) return false;
                          for (const iovec& buffer : part)
                            std::memset(buffer.iov_base, 0, buffer.iov_len);
                          return true;
                        });
  request.written = static_cast<uint32_t>(bytes);
  return complete ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

uint8_t BlockDevice::planWrite(Request& request, uint64_t sector) noexcept {
  const uint64_t bytes = request.chain->readableBytes() - kHeaderBytes;
  if (read_only_ || !inDisk(sector, bytes) || bytes > kMaxDataBytes) return VIRTIO_BLK_S_IOERR;
  uint64_t done = kHeaderBytes;
  const bool complete =
      map_.forEachPiece(sector * kSectorBytes, bytes,
                        [&](const DiskSegment* segment, uint64_t offset, uint64_t length) {
                          if (segment == nullptr || segment->read_only) return false;
                          IoOperation& operation = request.operations.emplace_back();
                          operation.kind = IoOperation::Kind::kWrite;
                          operation.fd = segment->fd;
                          operation.offset = offset;
                          appendSlice(request.chain->readable(), done, length, operation.buffers);
                          done += length;
                          return true;
                        });
  return complete ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

// §5.2.6.2: covers the writes that were completed before; those under way may be left out.
uint8_t BlockDevice::planFlush(Request& request) noexcept {
  if (read_only_) return VIRTIO_BLK_S_UNSUPP;
  for (const int fd : files_) request.operations.push_back({IoOperation::Kind::kSync, fd});
  return VIRTIO_BLK_S_OK;
}

// §5.2.6.2: one range per request (max_discard_seg), unknown flags are unsupported, and UNMAP
// means nothing on a discard.
uint8_t BlockDevice::planTrim(Request& request, uint32_t type) noexcept {
  if (read_only_) return VIRTIO_BLK_S_IOERR;
  const auto range = request.chain->readAs<virtio_blk_discard_write_zeroes>(kHeaderBytes);
  if (!range || request.chain->readableBytes() != kHeaderBytes + sizeof *range) {
    return VIRTIO_BLK_S_IOERR;
  }
  const bool discard = type == VIRTIO_BLK_T_DISCARD;
  const uint32_t known_flags = discard ? 0 : uint32_t{VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
  if ((range->flags & ~known_flags) != 0) return VIRTIO_BLK_S_UNSUPP;
  const uint64_t bytes = uint64_t{range->num_sectors} * kSectorBytes;
  if (range->num_sectors == 0 || range->num_sectors > kMaxDiscardSectors ||
      !inDisk(range->sector, bytes)) {
    return VIRTIO_BLK_S_IOERR;
  }
  const auto kind =
      discard || range->flags != 0 ? IoOperation::Kind::kPunchHole : IoOperation::Kind::kZeroRange;
  const bool complete =
      map_.forEachPiece(range->sector * kSectorBytes, bytes,
                        [&](const DiskSegment* segment, uint64_t offset, uint64_t length) {
                          if (segment == nullptr || segment->read_only) return false;
                          request.operations.push_back({kind, segment->fd, offset, length});
                          return true;
                        });
  return complete ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

uint8_t BlockDevice::identify(Request& request) noexcept {
  std::array<char, VIRTIO_BLK_ID_BYTES> id{};
  std::copy_n(id_.begin(), std::min(id_.size(), id.size()), id.begin());
  const size_t size = std::min<uint64_t>(request.status_at, id.size());
  if (!request.chain->write(0, std::as_bytes(std::span(id).first(size)))) {
    return VIRTIO_BLK_S_IOERR;
  }
  request.written = static_cast<uint32_t>(size);
  return VIRTIO_BLK_S_OK;
}

void BlockDevice::finish(Request& request) noexcept {
  const bool ok = request.status == VIRTIO_BLK_S_OK;
  const bool reported = request.chain->writeAs(request.status_at, request.status);
  const uint32_t written = (ok ? request.written : 0) + 1;
  queues_[request.queue].push(std::move(*request.chain), reported ? written : 0);
  request.chain.reset();
  idle_.push_back(&request);
}

void BlockDevice::onIoDone(IoOperation& operation) noexcept {
  Request& request = *static_cast<Request*>(operation.request);
  if (operation.result != DiskResult::kOk) request.status = statusOf(operation.result);
  if (--request.left == 0) finish(request);
}

void BlockDevice::onIoBatchEnd() noexcept {
  bool interrupt = false;
  for (Queue& queue : queues_) interrupt = queue.takeInterrupt() || interrupt;
  if (interrupt) host_->interrupt();
}

}  // namespace hull::vmm::virtio
