// virtio-blk (virtio 1.2 §5.2): as many queues as there are vCPUs (up to kMaxQueues) over a disk
// made of segments. No SCSI, no format probing: sectors in, sectors out. Requests are split into
// operations on files and handed to an IoEngine; the status byte and the used ring are written when
// the last of them is done, in whatever order that is.
//
// Reads and writes may have limits, each their own: a request that is over its limit is parked, in
// order, until a timer of the loop lets it go; requests of the other direction pass it.
//
// Read-only disks are read-only three times over: the feature, a check here, and descriptors that
// cannot write.
//
// A writable disk may grow while it runs (growth.cc): behind its first end come segments of other
// files, some of them read-only, and the driver is told. There, what no segment covers is no zeros
// but an error, and so is a write that touches a read-only segment.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <linux/virtio_blk.h>

#include <array>
#include <atomic>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/config/vm_config.h"
#include "vmm/token_bucket.h"
#include "vmm/virtio/block/disk.h"
#include "vmm/virtio/block/io_engine.h"
#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

class BlockDevice final : public Device, private IoClient {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint32_t kMaxQueues = 4;
  // The largest discard or write-zeroes in one request: 2 GiB.
  static constexpr uint32_t kMaxDiscardSectors = 1 << 22;

  // The descriptors in `config` stay the caller's. Throws kInvalidArgument when a read-only disk
  // comes with a descriptor that can write, or a writable one with a descriptor that cannot.
  BlockDevice(const DiskConfig& config, uint32_t vcpus, IoEngine& engine, EventLoop& loop);
  ~BlockDevice() override;

  DeviceType type() const noexcept override { return DeviceType::kBlock; }
  uint64_t features() const noexcept override;
  std::span<const uint16_t> queueSizes() const noexcept override { return queue_sizes_; }
  // A driver may leave the others alone (§5.2.5: it chooses up to num_queues).
  size_t requiredQueues() const noexcept override { return 1; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void readConfig(uint64_t offset, std::span<std::byte> into) const noexcept override;
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  bool canSave() const noexcept override { return sizeBytes() == first_bytes_; }
  void quiesce() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;

  const std::string& id() const noexcept { return id_; }
  void setLimits(const IoLimits& read, const IoLimits& write) noexcept;
  uint64_t sizeBytes() const noexcept { return size_bytes_.load(std::memory_order_relaxed); }
  // `files` are the segments', in their order. Throws kInvalidArgument with nothing changed.
  void grow(const DiskGrowth& growth, std::vector<Fd> files);
  // Waits for what is under way. What the disk began with stays.
  void cut(uint64_t offset, uint64_t length);

 private:
  // One request from pop to push. `left` operations are under way.
  struct Request {
    size_t queue = 0;
    std::optional<Chain> chain;
    virtio_blk_outhdr header{};  // the copy that everything goes by
    uint64_t status_at = 0;      // §5.2.6: the last writable byte
    uint32_t written = 0;        // before the status, if all goes well
    uint8_t status = VIRTIO_BLK_S_OK;
    size_t left = 0;
    std::vector<IoOperation> operations;
  };
  enum Direction : size_t { kReading, kWriting, kDirections };
  struct Lane {
    Throttle throttle;
    std::deque<Request*> parked;
  };
  bool handle(size_t queue, Chain&& chain) noexcept;
  void admit(Request& request) noexcept;
  void begin(Request& request) noexcept;
  void releaseParked() noexcept;
  void waitForTokens() noexcept;
  uint8_t plan(Request& request) noexcept;
  uint8_t planRead(Request& request, uint64_t sector) noexcept;
  uint8_t planWrite(Request& request, uint64_t sector) noexcept;
  uint8_t planFlush(Request& request) noexcept;
  uint8_t planTrim(Request& request, uint32_t type) noexcept;
  uint8_t identify(Request& request) noexcept;
  void finish(Request& request) noexcept;
  bool inDisk(uint64_t sector, uint64_t bytes) const noexcept;
  // Throws kInvalidArgument for a descriptor that can do more, or less.
  static void requireMode(int fd, bool read_only, const std::string& id);
  void onIoDone(IoOperation& operation) noexcept override;
  void onIoBatchEnd() noexcept override;

  std::string id_;
  const uint64_t first_bytes_;
  std::atomic<uint64_t> size_bytes_;  // written by the device thread
  bool read_only_;
  SegmentMap map_;
  std::vector<int> files_;  // to be synced
  std::vector<Fd> grown_files_;
  IoEngine& engine_;
  EventLoop& loop_;
  std::array<Lane, kDirections> lanes_;
  std::optional<EventLoop::TimerId> timer_;
  std::vector<uint16_t> queue_sizes_;
  virtio_blk_config config_{};  // with the first size

  DeviceHost* host_ = nullptr;
  std::vector<Queue> queues_;
  std::deque<Request> requests_;  // at most one for each place in the queues
  std::vector<Request*> idle_;
};

}  // namespace hull::vmm::virtio
