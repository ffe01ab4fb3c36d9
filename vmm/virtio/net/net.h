// virtio-net (virtio 1.2 §5.1) on a tap descriptor: one queue pair, checksum and TCP segmentation
// offloads passed through, mergeable receive buffers.
//
// The guest's headers are checked and cleaned (frame.h), frames with a foreign source address are
// dropped. When the guest offers no buffers, the tap is left alone: its own queue fills up and the
// host drops, as on a wire.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "vmm/config/vm_config.h"
#include "vmm/token_bucket.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/net/frame.h"

namespace hull::vmm::virtio {

class NetDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint32_t kMaxFramesPerTurn = 64;

  // Does not own config.tap_fd; makes it non-blocking and sets its header size. Throws when the
  // descriptor is not a tap with IFF_VNET_HDR.
  NetDevice(const NetConfig& config, EventLoop& loop);
  ~NetDevice() override;

  DeviceType type() const noexcept override { return DeviceType::kNet; }
  uint64_t features() const noexcept override { return features_; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;

  // Over its limit a direction rests until a timer: transmit buffers stay in the guest's ring,
  // received frames in the tap's queue.
  void setLimits(const IoLimits& receive, const IoLimits& transmit) noexcept;

 private:
  static constexpr std::array<uint16_t, 2> kQueueSizes{kQueueSize, kQueueSize};

  void transmit() noexcept;
  void transmitFrame(const Chain& chain) noexcept;
  void receive() noexcept;
  bool readFrame() noexcept;
  bool deliverFrame() noexcept;
  bool collectBuffers() noexcept;
  void giveBuffersBack() noexcept;
  void scatterFrame() noexcept;
  void watchTap(bool on) noexcept;
  void rest(Throttle& throttle) noexcept;

  int tap_;
  MacAddress mac_;
  EventLoop& loop_;
  uint64_t features_ = 0;
  NetConfigSpace config_{};

  DeviceHost* host_ = nullptr;
  uint64_t negotiated_ = 0;
  std::optional<Queue> receive_;
  std::optional<Queue> transmit_;
  bool watching_ = false;
  Throttle receive_throttle_, transmit_throttle_;
  std::optional<EventLoop::TimerId> timer_;

  // One frame between tap and guest, with its header.
  std::unique_ptr<std::byte[]> frame_;
  size_t frame_bytes_ = 0;  // 0: none waits
  std::vector<Chain> buffers_;
  std::vector<iovec> slice_;
};

}  // namespace hull::vmm::virtio
