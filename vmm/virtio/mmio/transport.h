// virtio over MMIO, version 2 (virtio 1.2 §4.2.2): the register block of one device, the status
// state machine (§2.1, §3.1), feature negotiation, and the hand-over of validated queues to the
// device. Drivers that break the rules are ignored or made to reset; see write().
//
// Owner: Machine. Register accesses come from vCPU threads and are serialised by a mutex, which the
// device thread never takes: what it shares (status, interrupt status) is atomic. activate() and
// reset() of the device run on the device thread while the vCPU waits, so a driver that has written
// 0 to Status may reuse its rings at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/bus/bus.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

// Runs work on the device thread and waits for it; false when that thread has ended.
class DeviceThread {
 public:
  virtual ~DeviceThread() = default;
  virtual bool runAndWait(const std::function<void()>& work) noexcept = 0;
  virtual void post(std::function<void()> work) noexcept = 0;
};

class MmioTransport final : public BusDevice, private DeviceHost {
 public:
  MmioTransport(GuestMemory& memory, Device& device, DeviceThread& device_thread);

  // For KVM: written by the guest's QueueNotify (unless the device has descriptors of its own for
  // that, Device::queueNotifyFds); makes the interrupt.
  int notifyFd() const { return notify_fd_.get(); }
  int interruptFd() const noexcept override { return interrupt_fd_.get(); }

  // vCPU threads.
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

  // Device thread: notifyFd is readable.
  void onNotify() noexcept;

  // Device thread, all vCPUs stopped. load() expects a transport fresh from its constructor; after
  // it returned false neither transport nor device may be used.
  void save(ByteWriter& out) const;
  bool load(ByteReader& in);

 private:
  struct QueueRegisters {
    QueueLayout layout;
    bool ready = false;
  };

  void interrupt() noexcept override;
  void configChanged() noexcept override;
  void needsReset(std::string_view why) noexcept override;
  void notifyLater() noexcept override;

  uint32_t readRegister(uint64_t offset) noexcept;
  void writeRegister(uint64_t offset, uint32_t value) noexcept;
  void writeQueueRegister(uint64_t offset, uint32_t value) noexcept;
  void writeFeatures(uint32_t value) noexcept;
  void writeStatus(uint32_t value) noexcept;
  void notifyQueue(uint32_t queue) noexcept;
  void resetAll() noexcept;
  bool activate() noexcept;
  bool loadQueues(ByteReader& in, bool active, std::vector<Queue>& queues);
  bool statusHas(uint32_t bits) const noexcept;
  uint64_t offered() const noexcept { return device_.features() | device_.transportFeatures(); }
  void ignored(const char* what) noexcept;

  GuestMemory& memory_;
  Device& device_;
  DeviceThread& device_thread_;
  Fd notify_fd_;
  Fd interrupt_fd_;

  std::atomic<uint32_t> status_ = 0;
  std::atomic<uint32_t> interrupt_status_ = 0;
  std::atomic<uint32_t> config_generation_ = 0;
  bool active_ = false;  // device thread

  std::mutex mutex_;  // guards the rest
  uint32_t device_features_select_ = 0;
  uint32_t driver_features_select_ = 0;
  uint64_t driver_features_ = 0;
  uint32_t queue_select_ = 0;
  std::vector<QueueRegisters> queues_;
};

}  // namespace hull::vmm::virtio
