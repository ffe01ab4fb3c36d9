// virtio-fs (virtio 1.2 §5.11): a file system that another process on the host serves. This end
// only introduces the two: it gives the back end (virtiofsd) the guest's memory, the rings and
// their events, and watches over it. Requests go from the guest's driver to the back end and back
// without passing through this process: the queues' notifications are ioeventfds that the back end
// reads, its completions go straight to the device's irqfd.
//
// When the back end dies or breaks the protocol, the device asks for a reset and stays that way.
// Linux's driver cannot begin anew: whoever waits for a file would wait for ever. So the owner is
// told, and ends the VM.
//
// Owner: Machine. Device thread; see device.h. The constructor blocks until the back end answers.
#pragma once

#include <array>
#include <functional>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/config/vm_config.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/fs/vhost_user.h"

namespace hull::vmm::virtio {

class FsDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 512;
  static constexpr size_t kMaxTagBytes = 36;  // §5.11.4

  using Gone = std::function<void(std::string_view why)>;  // called once, must not throw

  // Does not own config.socket_fd. Throws when the back end is none that can be used.
  FsDevice(const FsConfig& config, EventLoop& loop,
           std::chrono::milliseconds reply_time = VhostUserClient::kReplyTime, Gone gone = {});
  ~FsDevice() override;

  DeviceType type() const noexcept override { return DeviceType::kFs; }
  uint64_t features() const noexcept override { return 0; }
  uint64_t transportFeatures() const noexcept override { return transport_features_; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1));
  }
  std::span<const Fd> queueNotifyFds() const noexcept override { return kicks_; }

  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override {}
  void reset() noexcept override;
  // What the back end holds (open files, their numbers) cannot be saved.
  bool canSave() const noexcept override { return false; }
  std::vector<QueuePosition> queuePositions() const noexcept override;

  bool failed() const noexcept { return failed_; }

 private:
  static constexpr size_t kQueues = 2;  // high priority, one for requests (§5.11.2)
  static constexpr std::array<uint16_t, kQueues> kQueueSizes{kQueueSize, kQueueSize};

  bool introduce(const Activation& activation) noexcept;
  void fail(std::string_view why) noexcept;
  void onBackEnd() noexcept;

  // §5.11.4: struct virtio_fs_config.
  struct ConfigSpace {
    std::array<char, kMaxTagBytes> tag{};
    uint32_t request_queues = 1;
  };
  static_assert(sizeof(ConfigSpace) == 40);

  int socket_;
  EventLoop& loop_;
  VhostUserClient back_end_;
  uint64_t transport_features_ = 0;
  ConfigSpace config_;
  std::array<Fd, kQueues> kicks_;
  DeviceHost* host_ = nullptr;  // while active
  bool failed_ = false;
  const Gone gone_;
};

}  // namespace hull::vmm::virtio
