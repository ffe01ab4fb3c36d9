// virtio-rng (virtio 1.2 §5.4): fills the guest's buffers from the host's getrandom(2), at most
// kMaxRequestBytes for one request.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <array>
#include <optional>

#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

class RngDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 16;
  static constexpr uint64_t kMaxRequestBytes = 64 << 10;

  DeviceType type() const noexcept override { return DeviceType::kRng; }
  uint64_t features() const noexcept override { return 0; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override { return {}; }
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override { queue_.reset(); }
  std::vector<QueuePosition> queuePositions() const noexcept override {
    return {queue_->position()};
  }

 private:
  static constexpr std::array<uint16_t, 1> kQueueSizes{kQueueSize};

  DeviceHost* host_ = nullptr;
  std::optional<Queue> queue_;
};

}  // namespace hull::vmm::virtio
