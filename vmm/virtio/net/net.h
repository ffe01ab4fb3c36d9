// virtio-net (virtio 1.2 §5.1): one queue pair, mergeable receive buffers; checksum and TCP
// segmentation offloads where the host's end of the card (backend.h) has them.
//
// The guest's headers are checked and cleaned (frame.h); frames with a foreign source address, or
// to addresses that the configuration blocks, are dropped.
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
#include "vmm/virtio/net/backend.h"
#include "vmm/virtio/net/frame.h"

namespace hull::vmm::virtio {

class NetDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr uint32_t kMaxFramesPerTurn = 64;

  // Does not own the configuration's descriptor. Throws when it is not what it should be.
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
  // received frames where the host queues them.
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
  void wait() noexcept;
  void stopWaiting() noexcept;
  void onReady(uint32_t events) noexcept;
  void rest(Throttle& throttle) noexcept;

  std::unique_ptr<NetBackend> backend_;
  MacAddress mac_;
  std::vector<Ipv4Subnet> blocked_;
  EventLoop& loop_;
  uint64_t features_ = 0;
  NetConfigSpace config_{};

  DeviceHost* host_ = nullptr;
  uint64_t negotiated_ = 0;
  std::optional<Queue> receive_;
  std::optional<Queue> transmit_;
  bool wants_frames_ = false, wants_room_ = false;  // from the backend, when it is ready
  uint32_t waits_for_ = 0;  // epoll events; 0: its descriptor is not watched
  bool told_end_ = false;
  Throttle receive_throttle_, transmit_throttle_;
  std::optional<EventLoop::TimerId> timer_;

  // One frame on its way to the guest, with its header.
  std::unique_ptr<std::byte[]> frame_;
  size_t frame_bytes_ = 0;  // 0: none waits
  std::vector<Chain> buffers_;
  std::vector<iovec> slice_;
};

}  // namespace hull::vmm::virtio
