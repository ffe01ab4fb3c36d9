// The driver's side of one virtqueue, for tests and fuzzers: lays rings out in guest memory, makes
// chains (well-formed or hostile), and reads what the device put into the used ring.
// Test code: throws std::logic_error when a test itself is wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/queue/queue.h"

namespace hull::vmm::virtio::testing {

inline constexpr uint64_t kTestMemoryBytes = 4 << 20;

class FakeDriver {
 public:
  // Rings at `base` (4 KiB-aligned, about 16 KiB), buffers from `base` + 64 KiB on.
  FakeDriver(GuestMemory& memory, uint16_t size, GuestAddress base = 0x10000)
      : memory_(memory), size_(size), next_buffer_(base + 0x10000) {
    layout_ = {size, base, base + 0x5000, base + 0x8000};
  }

  const QueueLayout& layout() const { return layout_; }
  Queue queue(bool event_idx = false, bool indirect = true) const {
    auto queue = Queue::create(memory_, layout_, kMaxQueueSize, event_idx, indirect);
    if (!queue) throw std::logic_error("bad layout");
    return std::move(*queue);
  }

  // Space for a buffer.
  GuestAddress allocate(uint64_t bytes) {
    const GuestAddress at = next_buffer_;
    next_buffer_ += (bytes + 15) & ~uint64_t{15};
    return at;
  }
  GuestAddress allocate(std::span<const std::byte> contents) {
    const GuestAddress at = allocate(contents.size());
    write(at, contents);
    return at;
  }

  void setDescriptor(uint16_t index, const Descriptor& descriptor) {
    put(layout_.descriptors + index * sizeof(Descriptor), descriptor);
  }
  // Puts a head into the ring and moves the index on.
  void makeAvailable(uint16_t head) {
    put<uint16_t>(layout_.available + 4 + (available_index_ % size_) * 2u, head);
    setAvailableIndex(static_cast<uint16_t>(available_index_ + 1));
  }
  void setAvailableIndex(uint16_t index) {
    available_index_ = index;
    put<uint16_t>(layout_.available + 2, index);
  }
  void setAvailableFlags(uint16_t flags) { put<uint16_t>(layout_.available, flags); }
  void setUsedEvent(uint16_t index) { put<uint16_t>(layout_.available + 4 + size_ * 2u, index); }

  uint16_t availableIndex() const { return available_index_; }

  struct Used {
    uint32_t id;
    uint32_t length;
  };
  uint16_t usedIndex() const { return get<uint16_t>(layout_.used + 2); }
  uint16_t usedFlags() const { return get<uint16_t>(layout_.used); }
  uint16_t availableEvent() const { return get<uint16_t>(layout_.used + 4 + size_ * 8u); }
  Used used(uint16_t index) const { return get<Used>(layout_.used + 4 + (index % size_) * 8u); }

  template <typename T>
  T get(GuestAddress address) const {
    const auto value = memory_.read<T>(address);
    if (!value) throw std::logic_error("read outside of memory");
    return *value;
  }
  template <typename T>
  void put(GuestAddress address, const T& value) {
    write(address, std::as_bytes(std::span(&value, 1)));
  }
  void write(GuestAddress address, std::span<const std::byte> bytes) {
    if (!memory_.write(address, bytes)) throw std::logic_error("write outside of memory");
  }
  std::string text(GuestAddress address, size_t bytes) const {
    std::string result(bytes, '\0');
    if (!memory_.read(address, std::as_writable_bytes(std::span(result)))) {
      throw std::logic_error("read outside of memory");
    }
    return result;
  }

  uint16_t nextDescriptor() { return next_descriptor_++ % size_; }

 private:
  GuestMemory& memory_;
  uint16_t size_;
  GuestAddress next_buffer_;
  QueueLayout layout_;
  uint16_t available_index_ = 0;
  uint16_t next_descriptor_ = 0;
};

// Makes one well-formed chain, descriptor by descriptor.
class ChainBuilder {
 public:
  explicit ChainBuilder(FakeDriver& driver) : driver_(driver) {}

  ChainBuilder& readable(std::span<const std::byte> contents) {
    parts_.push_back({driver_.allocate(contents), static_cast<uint32_t>(contents.size()), 0, 0});
    return *this;
  }
  ChainBuilder& readable(std::string_view text) {
    return readable(std::as_bytes(std::span(text.data(), text.size())));
  }
  template <typename T>
  ChainBuilder& readableValue(const T& value) {
    return readable(std::as_bytes(std::span(&value, 1)));
  }
  ChainBuilder& writable(uint32_t bytes, GuestAddress* where = nullptr) {
    const GuestAddress at = driver_.allocate(bytes);
    if (where != nullptr) *where = at;
    parts_.push_back({at, bytes, kDescriptorWrite, 0});
    return *this;
  }
  ChainBuilder& raw(const Descriptor& descriptor) {
    parts_.push_back(descriptor);
    return *this;
  }

  // Writes the descriptors and makes the chain available; returns its head.
  uint16_t send() {
    std::vector<uint16_t> indices;
    for (size_t i = 0; i < parts_.size(); ++i) indices.push_back(driver_.nextDescriptor());
    for (size_t i = 0; i < parts_.size(); ++i) {
      link(parts_[i], i, indices);
      driver_.setDescriptor(indices[i], parts_[i]);
    }
    driver_.makeAvailable(indices[0]);
    return indices[0];
  }
  // The same through an indirect table.
  uint16_t sendIndirect() {
    std::vector<uint16_t> indices;
    for (size_t i = 0; i < parts_.size(); ++i) indices.push_back(static_cast<uint16_t>(i));
    for (size_t i = 0; i < parts_.size(); ++i) link(parts_[i], i, indices);
    const auto bytes = std::as_bytes(std::span(parts_));
    const GuestAddress table = driver_.allocate(bytes);
    const uint16_t head = driver_.nextDescriptor();
    driver_.setDescriptor(head,
                          {table, static_cast<uint32_t>(bytes.size()), kDescriptorIndirect, 0});
    driver_.makeAvailable(head);
    return head;
  }

 private:
  void link(Descriptor& descriptor, size_t i, const std::vector<uint16_t>& indices) {
    if (i + 1 >= parts_.size()) return;
    descriptor.flags |= kDescriptorNext;
    descriptor.next = indices[i + 1];
  }
  FakeDriver& driver_;
  std::vector<Descriptor> parts_;
};

// What a device told its transport.
class FakeHost final : public DeviceHost {
 public:
  void interrupt() noexcept override { ++interrupts; }
  int interruptFd() const noexcept override { return interrupt_fd; }
  void needsReset(std::string_view why) noexcept override { reset_reason = why; }
  void configChanged() noexcept override { ++config_changes; }
  void notifyLater() noexcept override { ++later; }

  int interrupts = 0;
  int interrupt_fd = -1;
  int later = 0;
  int config_changes = 0;
  std::optional<std::string> reset_reason;
};

}  // namespace hull::vmm::virtio::testing
