#include "vmm/virtio/mmio/transport.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "vmm/rate_limit.h"

namespace hull::vmm::virtio {

namespace {

// virtio 1.2 §4.2.2, table 4.1.
enum Register : uint64_t {
  kMagicValue = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSelect = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSelect = 0x024,
  kQueueSelect = 0x030,
  kQueueSizeMax = 0x034,
  kQueueSize = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = 0x050,
  kInterruptStatus = 0x060,
  kInterruptAck = 0x064,
  kStatus = 0x070,
  kQueueDescLow = 0x080,
  kQueueDescHigh = 0x084,
  kQueueDriverLow = 0x090,
  kQueueDriverHigh = 0x094,
  kQueueDeviceLow = 0x0a0,
  kQueueDeviceHigh = 0x0a4,
  kShmLengthLow = 0x0b0,
  kShmBaseHigh = 0x0bc,
  kConfigGeneration = 0x0fc,
  kConfig = 0x100,
};
constexpr uint32_t kMagic = 0x74726976;  // "virt"
constexpr uint32_t kModernVersion = 2;
constexpr uint32_t kVendor = 0x4c4c5548;  // "HULL"

// §2.1.
enum Status : uint32_t {
  kAcknowledge = 1,
  kDriver = 2,
  kDriverOk = 4,
  kFeaturesOk = 8,
  kNeedsReset = 64,
  kFailed = 128,
};
constexpr uint32_t kAllStatus =
    kAcknowledge | kDriver | kDriverOk | kFeaturesOk | kNeedsReset | kFailed;
constexpr uint32_t kRunning = kAcknowledge | kDriver | kFeaturesOk | kDriverOk;

constexpr uint32_t kInterruptUsedBuffer = 1;
constexpr uint32_t kInterruptConfigChange = 2;
constexpr uint32_t kAllInterrupts = kInterruptUsedBuffer | kInterruptConfigChange;
constexpr uint64_t kHighHalf = 32;

Fd makeEventFd() {
  Fd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw sysError("make virtio event");
  return fd;
}

void signal(const Fd& fd) noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(fd.get(), &one, sizeof one);
}

void setLow(uint64_t& address, uint32_t value) {
  address = (address & ~uint64_t{UINT32_MAX}) | value;
}
void setHigh(uint64_t& address, uint32_t value) {
  address = (address & UINT32_MAX) | uint64_t{value} << kHighHalf;
}

}  // namespace

MmioTransport::MmioTransport(GuestMemory& memory, Device& device, DeviceThread& device_thread)
    : memory_(memory),
      device_(device),
      device_thread_(device_thread),
      notify_fd_(makeEventFd()),
      interrupt_fd_(makeEventFd()),
      queues_(device.queueSizes().size()) {}

bool MmioTransport::statusHas(uint32_t bits) const noexcept {
  return (status_.load(std::memory_order_acquire) & bits) == bits;
}

void MmioTransport::ignored(const char* what) noexcept {
  static RateLimit limit;
  if (!limit.allow()) return;
  log::debug(
      fmt::format("virtio device {}: {} ignored", static_cast<uint32_t>(device_.type()), what));
}

// §4.2.2.2: registers below 0x100 are 32 bits wide and aligned; config space takes any access.
void MmioTransport::read(uint64_t offset, std::span<std::byte> into) noexcept {
  std::memset(into.data(), 0, into.size());
  if (offset >= kConfig) {
    device_.readConfig(offset - kConfig, into);
    return;
  }
  if (into.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) {
    return ignored("misaligned register read");
  }
  const std::lock_guard lock(mutex_);
  const uint32_t value = readRegister(offset);
  std::memcpy(into.data(), &value, sizeof value);
}

uint32_t MmioTransport::readRegister(uint64_t offset) noexcept {
  switch (offset) {
    case kMagicValue:
      return kMagic;
    case kVersion:
      return kModernVersion;
    case kDeviceId:
      return static_cast<uint32_t>(device_.type());
    case kVendorId:
      return kVendor;
    case kDeviceFeatures:
      if (device_features_select_ > 1) return 0;
      return static_cast<uint32_t>(offered() >> (device_features_select_ * kHighHalf));
    case kQueueSizeMax:
      return queue_select_ < queues_.size() ? device_.queueSizes()[queue_select_] : 0;
    case kQueueReady:
      return queue_select_ < queues_.size() && queues_[queue_select_].ready ? 1 : 0;
    case kInterruptStatus:
      // Who interrupts without passing through here cannot set the bit; a look at the rings for
      // nothing does no harm.
      return interrupt_status_.load(std::memory_order_acquire) |
             (device_.queueNotifyFds().empty() ? 0 : kInterruptUsedBuffer);
    case kStatus:
      return status_.load(std::memory_order_acquire);
    case kConfigGeneration:
      return config_generation_.load(std::memory_order_acquire);
    default:
      // No shared memory regions: length and base are all ones (§4.2.2, SHMLenLow).
      return offset >= kShmLengthLow && offset <= kShmBaseHigh ? UINT32_MAX : 0;
  }
}

void MmioTransport::write(uint64_t offset, std::span<const std::byte> from) noexcept {
  if (offset >= kConfig) return device_.writeConfig(offset - kConfig, from);
  if (from.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) {
    return ignored("misaligned register write");
  }
  uint32_t value = 0;
  std::memcpy(&value, from.data(), sizeof value);
  const std::lock_guard lock(mutex_);
  writeRegister(offset, value);
}

void MmioTransport::writeRegister(uint64_t offset, uint32_t value) noexcept {
  switch (offset) {
    case kDeviceFeaturesSelect:
      device_features_select_ = value;
      return;
    case kDriverFeaturesSelect:
      driver_features_select_ = value;
      return;
    case kDriverFeatures:
      return writeFeatures(value);
    case kQueueSelect:
      queue_select_ = value;
      return;
    case kQueueNotify:  // usually caught by the ioeventfd
      return notifyQueue(value);
    case kInterruptAck:
      interrupt_status_.fetch_and(~value, std::memory_order_acq_rel);
      return;
    case kStatus:
      return writeStatus(value);
    default:
      return writeQueueRegister(offset, value);
  }
}

void MmioTransport::notifyQueue(uint32_t queue) noexcept {
  const auto own = device_.queueNotifyFds();
  if (own.empty()) return signal(notify_fd_);
  if (queue < own.size()) signal(own[queue]);
}

// §3.1.1 step 4: only between DRIVER and FEATURES_OK.
void MmioTransport::writeFeatures(uint32_t value) noexcept {
  if (!statusHas(kDriver) || statusHas(kFeaturesOk) || driver_features_select_ > 1) {
    return ignored("feature write");
  }
  if (driver_features_select_ == 0) {
    setLow(driver_features_, value);
  } else {
    setHigh(driver_features_, value);
  }
}

// §4.2.3.2 and §2.6: queues are set up after FEATURES_OK, before DRIVER_OK, and not while ready.
void MmioTransport::writeQueueRegister(uint64_t offset, uint32_t value) noexcept {
  if (queue_select_ >= queues_.size() || !statusHas(kFeaturesOk) || statusHas(kDriverOk)) {
    return ignored("queue register write");
  }
  QueueRegisters& queue = queues_[queue_select_];
  if (offset == kQueueReady) {
    queue.ready = (value & 1) != 0;
    return;
  }
  if (queue.ready) return ignored("write to a queue that is ready");
  switch (offset) {
    case kQueueSize:
      // Too much for the field is as wrong as any other bad size, and refused at activation.
      queue.layout.size = value > UINT16_MAX ? uint16_t{0} : static_cast<uint16_t>(value);
      return;
    case kQueueDescLow:
      return setLow(queue.layout.descriptors, value);
    case kQueueDescHigh:
      return setHigh(queue.layout.descriptors, value);
    case kQueueDriverLow:
      return setLow(queue.layout.available, value);
    case kQueueDriverHigh:
      return setHigh(queue.layout.available, value);
    case kQueueDeviceLow:
      return setLow(queue.layout.used, value);
    case kQueueDeviceHigh:
      return setHigh(queue.layout.used, value);
    default:
      return ignored("write to a read-only register");
  }
}

// §2.1.1: bits are set one after the other and never cleared but by writing 0. A step taken out of
// order does not happen; the driver sees that in the status it reads back.
void MmioTransport::writeStatus(uint32_t value) noexcept {
  if (value == 0) return resetAll();
  const uint32_t current = status_.load(std::memory_order_acquire);
  const uint32_t kept = current & ~uint32_t{kNeedsReset};
  if ((value & kept) != kept) return ignored("status bits cleared");
  uint32_t added = value & ~current & (kAcknowledge | kDriver | kDriverOk | kFeaturesOk | kFailed);
  const auto require = [&](uint32_t bit, uint32_t before) {
    if ((added & bit) != 0 && ((current | added) & before) != before) added &= ~bit;
  };
  require(kDriver, kAcknowledge);
  require(kFeaturesOk, kDriver);
  const uint64_t extra = driver_features_ & ~offered();
  if (extra != 0 || (driver_features_ & kFeatureVersion1) == 0) added &= ~uint32_t{kFeaturesOk};
  require(kDriverOk, kFeaturesOk);
  status_.fetch_or(added, std::memory_order_acq_rel);
  if ((added & kDriverOk) != 0 && !activate()) {
    status_.fetch_or(kNeedsReset, std::memory_order_acq_rel);
    ignored("start with invalid queues");
  }
}

bool MmioTransport::activate() noexcept {
  std::vector<Queue> queues;
  for (size_t i = 0; i < queues_.size(); ++i) {
    if (!queues_[i].ready && i >= device_.requiredQueues()) break;  // not wanted by the driver
    if (!queues_[i].ready) return false;
    auto queue = Queue::create(memory_, queues_[i].layout, device_.queueSizes()[i],
                               (driver_features_ & kFeatureEventIdx) != 0,
                               (driver_features_ & kFeatureIndirect) != 0);
    if (!queue) return false;
    queues.push_back(std::move(*queue));
  }
  device_thread_.runAndWait([&] {
    active_ = true;
    device_.activate({memory_, *this, driver_features_, std::move(queues)});
  });
  return true;
}

void MmioTransport::resetAll() noexcept {
  device_thread_.runAndWait([this] {
    if (active_) device_.reset();
    active_ = false;
  });
  interrupt_status_ = 0;
  driver_features_ = 0;
  driver_features_select_ = 0;
  device_features_select_ = 0;
  queue_select_ = 0;
  queues_.assign(queues_.size(), {});
  status_ = 0;
}

void MmioTransport::onNotify() noexcept {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(notify_fd_.get(), &count, sizeof count);
  if (active_) device_.notify();
}

void MmioTransport::interrupt() noexcept {
  interrupt_status_.fetch_or(kInterruptUsedBuffer, std::memory_order_acq_rel);
  signal(interrupt_fd_);
}

void MmioTransport::configChanged() noexcept {
  config_generation_.fetch_add(1, std::memory_order_acq_rel);
  interrupt_status_.fetch_or(kInterruptConfigChange, std::memory_order_acq_rel);
  signal(interrupt_fd_);
}

// The device is stopped by a later turn of the loop: it is in the middle of something now.
void MmioTransport::needsReset(std::string_view why) noexcept {
  if ((status_.fetch_or(kNeedsReset, std::memory_order_acq_rel) & kNeedsReset) != 0) return;
  static RateLimit limit;
  if (limit.allow())
    log::warning(fmt::format("virtio {}: stopped until the driver resets it", why));
  device_thread_.post([this] {
    if (!active_ || !statusHas(kNeedsReset)) return;
    device_.reset();
    active_ = false;
  });
  interrupt_status_.fetch_or(kInterruptConfigChange, std::memory_order_acq_rel);
  signal(interrupt_fd_);
}

void MmioTransport::notifyLater() noexcept {
  signal(notify_fd_);
}

// A device that broke is as good as stopped: only the turn of the loop that does it is missing.
void MmioTransport::save(ByteWriter& out) const {
  const bool active = active_ && !statusHas(kNeedsReset);
  if (active) device_.quiesce();  // may interrupt
  out.u32(status_);
  out.u32(interrupt_status_);
  out.u32(config_generation_);
  out.u32(device_features_select_);
  out.u32(driver_features_select_);
  out.u64(driver_features_);
  out.u32(queue_select_);
  out.boolean(active);
  const auto positions = active ? device_.queuePositions() : std::vector<QueuePosition>();
  for (size_t i = 0; i < queues_.size(); ++i) {
    const auto& [layout, ready] = queues_[i];
    const QueuePosition position = i < positions.size() ? positions[i] : QueuePosition{};
    out.u16(layout.size);
    out.u64(layout.descriptors);
    out.u64(layout.available);
    out.u64(layout.used);
    out.boolean(ready);
    out.u16(position.next_available);
    out.u16(position.next_used);
  }
  if (active) device_.save(out);
}

// Nothing that a driver could not have brought about through the registers is taken; the queues are
// checked as at any start.
bool MmioTransport::load(ByteReader& in) {
  const uint32_t status = in.u32();
  const uint32_t interrupts = in.u32();
  const uint32_t generation = in.u32();
  device_features_select_ = in.u32();
  driver_features_select_ = in.u32();
  driver_features_ = in.u64();
  queue_select_ = in.u32();
  const bool active = in.boolean();
  if (!in.ok() || (status & ~kAllStatus) != 0 || (interrupts & ~kAllInterrupts) != 0) return false;
  const bool agreed =
      (driver_features_ & ~offered()) == 0 && (driver_features_ & kFeatureVersion1) != 0;
  if ((status & kFeaturesOk) != 0 && !agreed) return false;
  if (active && (status & (kRunning | kNeedsReset)) != kRunning) return false;
  std::vector<Queue> queues;
  if (!loadQueues(in, active, queues)) return false;
  status_ = status;
  interrupt_status_ = interrupts;
  config_generation_ = generation;
  // The interrupt may not have reached the guest when the rest was saved; once more does no harm.
  if (interrupts != 0) signal(interrupt_fd_);
  if (!active) return true;
  active_ = true;
  device_.activate({memory_, *this, driver_features_, std::move(queues)});
  return device_.load(in) && in.ok();
}

bool MmioTransport::loadQueues(ByteReader& in, bool active, std::vector<Queue>& queues) {
  for (size_t i = 0; i < queues_.size(); ++i) {
    auto& [layout, ready] = queues_[i];
    layout = {in.u16(), in.u64(), in.u64(), in.u64()};
    ready = in.boolean();
    const QueuePosition position{in.u16(), in.u16()};
    if (!in.ok()) return false;
    if (!active || (!ready && i >= device_.requiredQueues())) continue;
    if (!ready || queues.size() != i) return false;  // missing, or one was left out before
    auto queue = Queue::create(memory_, layout, device_.queueSizes()[i],
                               (driver_features_ & kFeatureEventIdx) != 0,
                               (driver_features_ & kFeatureIndirect) != 0);
    if (!queue) return false;
    queue->setPosition(position);
    queues.push_back(std::move(*queue));
  }
  return true;
}

}  // namespace hull::vmm::virtio
