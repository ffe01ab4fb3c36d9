// A set of devices as a VM has them, behind their transports, on 4 MiB of memory: to be saved and
// restored without KVM, by tests and the fuzzer. No network card: it would need a tap.
// Test code; one thread, but for the disk engine's own.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/state/saved_machine.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/testing/inline_thread.h"
#include "vmm/virtio/balloon/balloon.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/block/thread_engine.h"
#include "vmm/virtio/console/console.h"
#include "vmm/virtio/rng/rng.h"
#include "vmm/virtio/vsock/vsock.h"

namespace hull::vmm::testing {

// What the devices of all sets share of the host.
class DeviceHostSide {
 public:
  static constexpr uint64_t kDiskBytes = 16384;

  DeviceHostSide() {
    writeFull(disk_.get(), std::string(kDiskBytes, 'd'));
    read_only_ = openFile("/proc/self/fd/" + std::to_string(disk_.get()), O_RDONLY);
    // A name that the kernel chooses (autobind).
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) < 0 ||
        listen(listener_.get(), 1) < 0) {
      throw std::logic_error("listen for vsock clients");
    }
    engine_.start(std::nullopt);
  }
  EventLoop& loop() { return loop_; }
  virtio::IoEngine& engine() { return engine_; }
  int disk() const { return read_only_.get(); }
  int listener() const { return listener_.get(); }

 private:
  EventLoop loop_;
  virtio::ThreadEngine engine_{loop_};
  Fd disk_ = makeMemfd("disk");
  Fd read_only_;
  Fd listener_{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

class SavedDevices {
 public:
  explicit SavedDevices(DeviceHostSide& host, uint64_t disk_bytes = DeviceHostSide::kDiskBytes)
      : host_(host) {
    const DiskConfig disk{"disk", disk_bytes, true, {{host.disk(), 0, 0, disk_bytes}}};
    add(std::make_unique<virtio::BlockDevice>(disk, 1, host.engine(), host.loop()));
    add(std::make_unique<virtio::VsockDevice>(VsockConfig{3, host.listener()}, host.loop()));
    add(std::make_unique<virtio::ConsoleDevice>(-1));
    add(std::make_unique<virtio::RngDevice>());
    add(std::make_unique<virtio::BalloonDevice>());
  }
  ~SavedDevices() {
    transports.clear();
    devices.clear();
  }

  // A driver for each, that does everything right, with a buffer in every queue. All of it lies in
  // [kRings, kRingsEnd).
  static constexpr GuestAddress kRings = 0x10000;
  static constexpr GuestAddress kRingsEnd = 0x12000;
  void start() {
    GuestAddress base = kRings;
    for (size_t slot = 0; slot < devices.size(); ++slot) {
      negotiate(slot);
      for (uint32_t index = 0; index < devices[slot]->queueSizes().size(); ++index) {
        setQueue(slot, index, makeQueue(base));
        base += kQueueSpacing;
      }
      set(slot, kStatus, 15);
    }
    work();
  }
  // Until nobody has anything to do.
  void work() {
    for (int i = 0; i < 4; ++i) {
      for (const auto& transport : transports) transport->onNotify();
      host_.engine().drain();
      host_.loop().runOnce(std::chrono::milliseconds(0));
      thread_.runPosted();
    }
  }

  GuestMemory memory{virtio::testing::kTestMemoryBytes};
  Devices devices;
  Transports transports;

 private:
  static constexpr uint16_t kRingSize = 8;
  static constexpr uint64_t kStatus = 0x70;
  static constexpr uint64_t kQueueSpacing = 0x200;

  void add(std::unique_ptr<virtio::Device> device) {
    transports.push_back(std::make_unique<virtio::MmioTransport>(memory, *device, thread_));
    devices.push_back(std::move(device));
  }
  void set(size_t slot, uint64_t offset, uint32_t value) {
    transports[slot]->write(offset, std::as_bytes(std::span(&value, 1)));
  }
  void setAddress(size_t slot, uint64_t offset, GuestAddress value) {
    set(slot, offset, static_cast<uint32_t>(value));
    set(slot, offset + 4, static_cast<uint32_t>(value >> 32));
  }
  // Descriptors, rings, and one buffer that is available.
  virtio::QueueLayout makeQueue(GuestAddress base) {
    const virtio::QueueLayout layout{kRingSize, base, base + 0x80, base + 0xa0};
    const virtio::Descriptor buffer{base + 0x100, 0x80, virtio::kDescriptorWrite, 0};
    if (!memory.write(layout.descriptors, buffer) || !memory.write<uint16_t>(base + 0x82, 1)) {
      throw std::logic_error("write a queue");
    }
    return layout;
  }
  void negotiate(size_t slot) {
    const uint64_t features = devices[slot]->features() | virtio::kTransportFeatures;
    set(slot, kStatus, 1);
    set(slot, kStatus, 3);
    for (const uint32_t half : {0u, 1u}) {
      set(slot, 0x24, half);
      set(slot, 0x20, static_cast<uint32_t>(features >> (32 * half)));
    }
    set(slot, kStatus, 11);
  }
  void setQueue(size_t slot, uint32_t index, const virtio::QueueLayout& layout) {
    set(slot, 0x30, index);
    set(slot, 0x38, layout.size);
    setAddress(slot, 0x80, layout.descriptors);
    setAddress(slot, 0x90, layout.available);
    setAddress(slot, 0xa0, layout.used);
    set(slot, 0x44, 1);
  }

  DeviceHostSide& host_;
  virtio::testing::InlineThread thread_;
};

}  // namespace hull::vmm::testing
