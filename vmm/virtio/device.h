// What a virtio device is to its transport, and the transport to its device. Narrow on purpose: the
// transport owns registers, feature negotiation and status; a device sees only a complete,
// validated set of queues, moved into activate(), until reset().
//
// Threads: readConfig and writeConfig come from vCPU threads. Type, features, queueSizes and config
// are constant after construction and may be asked from any thread. Everything else happens on the
// device thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/queue/queue.h"

namespace hull::vmm::virtio {

// virtio 1.2 §5.
enum class DeviceType : uint32_t {
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kRng = 4,
  kBalloon = 5,
  kVsock = 19,
  kFs = 26,
};

// virtio 1.2 §6: what the transport and the queues implement for every device.
inline constexpr uint64_t kFeatureIndirect = uint64_t{1} << 28;
inline constexpr uint64_t kFeatureEventIdx = uint64_t{1} << 29;
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;
inline constexpr uint64_t kTransportFeatures =
    kFeatureIndirect | kFeatureEventIdx | kFeatureVersion1;

// The transport, as an active device sees it.
class DeviceHost {
 public:
  virtual ~DeviceHost() = default;
  virtual void interrupt() noexcept = 0;  // used buffers (§2.9)
  // What interrupt() writes to, for devices that let another process interrupt the guest.
  virtual int interruptFd() const noexcept = 0;
  // The driver (or a back end) broke a rule: no queue is looked at again until it resets the device
  // (§2.1.1).
  virtual void needsReset(std::string_view why) noexcept = 0;
  // The device's configuration is another than before (§2.5); the driver will read it.
  virtual void configChanged() noexcept = 0;
  // Calls notify() again soon, after other devices had their turn.
  virtual void notifyLater() noexcept = 0;
};

struct Activation {
  GuestMemory& memory;
  DeviceHost& host;
  uint64_t features;          // as negotiated
  std::vector<Queue> queues;  // requiredQueues() up to all of queueSizes()
};

class Device {
 public:
  Device() = default;
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual DeviceType type() const noexcept = 0;
  virtual uint64_t features() const noexcept = 0;  // the device's own, without kTransportFeatures
  // Which of kTransportFeatures there are: fewer when somebody else works on the queues.
  virtual uint64_t transportFeatures() const noexcept { return kTransportFeatures; }
  virtual std::span<const uint16_t> queueSizes() const noexcept = 0;  // greatest size of each queue
  // How many of them, from the first on, a driver must set up; activate() gets those it did.
  virtual size_t requiredQueues() const noexcept { return queueSizes().size(); }
  virtual std::span<const std::byte> config() const noexcept = 0;
  // Accesses to the configuration from a vCPU thread, `offset` anywhere. Devices whose
  // configuration changes, or may be written, override them.
  virtual void readConfig(uint64_t offset, std::span<std::byte> into) const noexcept {
    copyConfig(config(), offset, into);
  }
  virtual void writeConfig(uint64_t, std::span<const std::byte>) noexcept {}
  // One for each queue when another process works on the queues (vhost-user): it is notified
  // through these instead of notify(), and interrupts the guest itself.
  virtual std::span<const Fd> queueNotifyFds() const noexcept { return {}; }

  virtual void activate(Activation&& activation) noexcept = 0;
  virtual void notify() noexcept = 0;  // the driver notified one of the queues, no matter which
  virtual void reset() noexcept = 0;   // back to before activate(); queues are gone

  // Whether a snapshot can hold this device.
  virtual bool canSave() const noexcept { return true; }
  // Ends what is under way, so that no chain is in the device's hands and guest memory is at rest:
  // before saving, with the vCPUs stopped, and before memory is saved.
  virtual void quiesce() noexcept {}
  // For saving, after quiesce(): where the queues stand, in order.
  virtual std::vector<QueuePosition> queuePositions() const noexcept = 0;
  // The device's own state beside its queues. load() is called after activate(); false: corrupt.
  virtual void save(ByteWriter&) const {}
  virtual bool load(ByteReader&) { return true; }

 protected:
  // Of `space`, what there is from `offset` on; the rest of `into` stays as it is.
  static void copyConfig(std::span<const std::byte> space, uint64_t offset,
                         std::span<std::byte> into) noexcept {
    if (offset >= space.size()) return;
    std::copy_n(space.begin() + static_cast<ptrdiff_t>(offset),
                std::min<size_t>(into.size(), space.size() - offset), into.begin());
  }
};

// An interrupt for what was pushed, and the device's side of what a drain found.
inline void settle(Queue& queue, DrainResult result, DeviceHost& host,
                   std::string_view device) noexcept {
  if (queue.takeInterrupt()) host.interrupt();
  if (result == DrainResult::kBroken) host.needsReset(device);
  if (result == DrainResult::kMore) host.notifyLater();
}

}  // namespace hull::vmm::virtio
