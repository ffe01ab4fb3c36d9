// A device behind its real transport, with a driver that may do to the registers and rings whatever
// a guest can. Between the attack and the verdict lie only the public registers and guest memory.
// Test code; one thread, which is vCPU and device thread in turn.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/memory/layout.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/testing/inline_thread.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/mmio/transport.h"

namespace hull::vmm::virtio::hostile {

class Bench;

// The device under attack, and its host side.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::string missing() const { return {}; }  // why it cannot be made here
  virtual Device& device() = 0;
  virtual EventLoop& loop() { return loop_; }
  // Makes the device want something of each of its queues: a frame arrives, a client connects.
  virtual void stir() {}
  // Waits for what the device has handed to others (disk operations).
  virtual void settle() {}
  // Does one piece of the device's ordinary work and says whether it was done right. The rings are
  // in order, but used ring and flags may hold anything: only the effect counts.
  virtual bool serves(Bench& bench) = 0;

 private:
  EventLoop loop_;
};

// Status bits (virtio 1.2 §2.1).
enum : uint32_t {
  kAcknowledge = 1,
  kDriver = 2,
  kDriverOk = 4,
  kFeaturesOk = 8,
  kNeedsReset = 64,
};
// Registers (virtio 1.2 §4.2.2).
enum : uint64_t {
  kFeatures = 0x10,
  kFeaturesSelect = 0x14,
  kDriverFeatures = 0x20,
  kDriverFeaturesSelect = 0x24,
  kQueueSelect = 0x30,
  kQueueSizeMax = 0x34,
  kQueueSize = 0x38,
  kQueueReady = 0x44,
  kQueueNotify = 0x50,
  kStatus = 0x70,
  kQueueDesc = 0x80,
  kQueueAvailable = 0x90,
  kQueueUsed = 0xa0,
};

class Bench {
 public:
  static constexpr uint16_t kRingSize = 8;
  // Memory on both sides of the device hole; reserved, not touched.
  static constexpr uint64_t kMemoryBytes = layout::kGapStart + 8 * layout::kMiB;
  static constexpr uint64_t kQueueSpacing = layout::kMiB;

  explicit Bench(Subject& subject);

  uint32_t get(uint64_t offset);
  void set(uint64_t offset, uint32_t value);
  uint32_t status() { return get(kStatus); }
  bool needsReset() { return (status() & kNeedsReset) != 0; }

  uint64_t offered();
  // Up to FEATURES_OK, with `features`.
  void negotiate(uint64_t features);
  void setQueue(uint32_t index, const QueueLayout& queue_layout);
  void driverOk();
  // A driver that does everything right, with every feature but `without`, on empty rings.
  void start(uint64_t without = 0);
  void reset();

  // Every queue is notified, the device works until it has nothing more to do.
  void kick();
  void turn();

  // What a save would keep of the device; and a device of the same kind that goes on from there, as
  // in another process, on the same memory. False: it was refused, and the bench is of no more use.
  std::string save();
  bool goOnWith(Subject& next, std::string_view state);

  uint32_t queues() const { return static_cast<uint32_t>(drivers_.size()); }
  testing::FakeDriver& queue(uint32_t index) { return *drivers_.at(index); }
  GuestMemory& memory() { return memory_; }
  MmioTransport& transport() { return *transport_; }
  Subject& subject() { return *subject_; }

 private:
  void freshRings();

  Subject* subject_;
  GuestMemory memory_{kMemoryBytes};
  testing::InlineThread thread_;
  std::unique_ptr<MmioTransport> transport_;
  std::vector<std::unique_ptr<testing::FakeDriver>> drivers_;
};

}  // namespace hull::vmm::virtio::hostile
