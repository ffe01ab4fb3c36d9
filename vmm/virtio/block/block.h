// virtio-blk (virtio 1.2 §5.2): one queue over a disk made of segments. Read-only disks have no
// writer at all. No SCSI, no format probing: sectors in, sectors out.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <linux/virtio_blk.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "vmm/config/vm_config.h"
#include "vmm/virtio/block/disk.h"
#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

class BlockDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 256;
  // The largest discard or write-zeroes in one request: 2 GiB.
  static constexpr uint32_t kMaxDiscardSectors = 1 << 22;

  // The descriptors in `config` stay the caller's.
  explicit BlockDevice(const DiskConfig& config);

  DeviceType type() const noexcept override { return DeviceType::kBlock; }
  uint64_t features() const noexcept override;
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;

 private:
  static constexpr std::array<uint16_t, 1> kQueueSizes{kQueueSize};

  // The status byte (§5.2.6) and how much was written before it.
  struct Outcome {
    uint8_t status;
    uint32_t written = 0;
  };
  bool handle(Chain&& chain) noexcept;
  Outcome perform(Chain& chain, uint64_t data_in) noexcept;
  Outcome readSectors(const Chain& chain, uint64_t sector, uint64_t bytes) noexcept;
  Outcome writeSectors(const Chain& chain, uint64_t sector) noexcept;
  Outcome identify(Chain& chain, uint64_t space) noexcept;
  Outcome trim(const Chain& chain, uint32_t type) noexcept;
  bool inDisk(uint64_t sector, uint64_t bytes) const noexcept;

  std::string id_;
  uint64_t size_bytes_;
  SegmentMap map_;
  SegmentReader reader_;
  std::unique_ptr<DiskWriter> writer_;  // null: read-only
  virtio_blk_config config_{};
  std::vector<iovec> slice_;

  DeviceHost* host_ = nullptr;
  std::optional<Queue> queue_;
};

}  // namespace hull::vmm::virtio
