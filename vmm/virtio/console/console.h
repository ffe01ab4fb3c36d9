// virtio-console (virtio 1.2 §5.3), one port: what the guest writes to hvc0 goes to a descriptor.
// Output only; the guest's input buffers are left alone. The output is bounded in rate and in
// total, and a reader that does not read loses output instead of stopping the VM.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <array>
#include <chrono>
#include <optional>

#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

// Writes to a descriptor what the limits allow, and drops the rest. Also used by the serial port;
// not thread-safe.
class BoundedOutput {
 public:
  static constexpr uint64_t kBurstBytes = 1 << 20;
  static constexpr uint64_t kBytesPerSecond = 256 << 10;
  static constexpr uint64_t kMaxTotalBytes = 64 << 20;

  explicit BoundedOutput(int fd) : fd_(fd) {}  // -1: everything is dropped
  void write(std::span<const std::byte> bytes) noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  void refill() noexcept;

  int fd_;
  uint64_t budget_ = kBurstBytes;
  uint64_t total_ = 0;
  Clock::time_point refilled_ = Clock::now();
};

class ConsoleDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 64;
  static constexpr size_t kMaxRequestBytes = 64 << 10;

  explicit ConsoleDevice(int fd) : output_(fd) {}

  DeviceType type() const noexcept override { return DeviceType::kConsole; }
  uint64_t features() const noexcept override { return 0; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override { return {}; }
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;

 private:
  static constexpr std::array<uint16_t, 2> kQueueSizes{kQueueSize, kQueueSize};

  BoundedOutput output_;
  DeviceHost* host_ = nullptr;
  std::optional<Queue> receive_;
  std::optional<Queue> transmit_;
};

}  // namespace hull::vmm::virtio
