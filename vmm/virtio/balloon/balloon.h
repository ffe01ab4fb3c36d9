// virtio-balloon (virtio 1.2 §5.5): memory the guest does not use goes back to the host.
//
// Free page reporting does that by itself: the guest's allocator names large free blocks as they
// come to be, their contents are dropped here, and the next touch finds zeroed memory again. The
// balloon proper is there for whoever wants more back: setTarget() asks the guest to give up that
// much; with DEFLATE_ON_OOM it takes it back rather than kill a process.
//
// The guest can only name memory of its own, so the worst it can do is lose its own data.
//
// Owner: Machine. Device thread; the configuration is read and written by vCPU threads.
#pragma once

#include <array>
#include <atomic>
#include <vector>

#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

class BalloonDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 128;
  // Linux inflates 256 pages at a time; more than this in one request are ignored.
  static constexpr size_t kMaxPagesPerRequest = 4096;
  // §5.5: pages are always 4 KiB, whatever the guest's are.
  static constexpr uint64_t kPageBytes = 4096;

  // Features (§5.5.3), by bit number.
  static constexpr uint64_t kDeflateOnOom = uint64_t{1} << 2;
  static constexpr uint64_t kPageReporting = uint64_t{1} << 5;

  DeviceType type() const noexcept override { return DeviceType::kBalloon; }
  uint64_t features() const noexcept override { return kDeflateOnOom | kPageReporting; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  // The reporting queue exists for drivers that took the feature. §5.5.2 numbers it 4, behind two
  // that we do not offer; Linux and QEMU count only those that exist.
  size_t requiredQueues() const noexcept override { return 2; }
  std::span<const std::byte> config() const noexcept override { return {}; }
  void readConfig(uint64_t offset, std::span<std::byte> into) const noexcept override;
  void writeConfig(uint64_t offset, std::span<const std::byte> from) noexcept override;
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;
  void save(ByteWriter& out) const override;
  bool load(ByteReader& in) override;

  // How much the guest shall give up, in pages of kPageBytes.
  void setTarget(uint32_t pages) noexcept;
  uint32_t target() const noexcept { return target_.load(std::memory_order_relaxed); }
  // What the guest says it has given up. Its word, for information only.
  uint32_t actual() const noexcept { return actual_.load(std::memory_order_relaxed); }
  // Bytes handed back to the host so far, each time they were.
  uint64_t reportedBytes() const noexcept { return reported_bytes_; }

 private:
  static constexpr std::array<uint16_t, 3> kQueueSizes{kQueueSize, kQueueSize, kQueueSize};
  enum QueueIndex : size_t { kInflate, kDeflate, kReporting };

  void serve(size_t index) noexcept;
  void inflate(const Chain& chain) noexcept;
  void report(const Chain& chain) noexcept;

  std::atomic<uint32_t> target_ = 0;
  std::atomic<uint32_t> actual_ = 0;
  uint64_t reported_bytes_ = 0;

  GuestMemory* memory_ = nullptr;
  DeviceHost* host_ = nullptr;
  std::vector<Queue> queues_;
};

}  // namespace hull::vmm::virtio
