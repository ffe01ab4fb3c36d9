// The device side of a split virtqueue (virtio 1.2 §2.7), with indirect descriptors and event idx.
//
// Everything in the rings is guest-controlled. A queue copies each descriptor once, checks the
// copy, and answers a driver's mistake with a value: pop() returns nothing and broken() becomes
// true, for good; the device then asks for a reset (§2.1.1 DEVICE_NEEDS_RESET). Nothing the guest
// writes makes a loop longer than the queue.
//
// A Chain is one request. It is moved out of the queue and must be given back: push() marks it
// used, unpop() puts the newest one back as if never taken, drop() forgets it (reset).
//
// Owner: the device, from activation to reset. Device thread only.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "vmm/memory/guest_memory.h"

namespace hull::vmm::virtio {

inline constexpr uint16_t kMaxQueueSize = 1024;

// virtio 1.2 §2.7.5: struct virtq_desc.
struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);
inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

// The buffers of one request: first those the device reads, then those it writes (§2.7.4.2).
class Chain {
 public:
  Chain(Chain&&) noexcept = default;
  Chain& operator=(Chain&&) noexcept = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  uint64_t readableBytes() const noexcept { return readable_bytes_; }
  uint64_t writableBytes() const noexcept { return writable_bytes_; }
  std::span<const iovec> readable() const noexcept {
    return std::span(buffers_).first(readable_count_);
  }
  std::span<const iovec> writable() const noexcept {
    return std::span(buffers_).subspan(readable_count_);
  }

  // Copies from (to) the readable (writable) bytes at `offset`; false, and nothing copied, when
  // they end before. Buffers may be split anywhere (§2.6.4: no assumptions on framing).
  [[nodiscard]] bool read(uint64_t offset, std::span<std::byte> into) const noexcept;
  [[nodiscard]] bool write(uint64_t offset, std::span<const std::byte> from) noexcept;
  template <typename T>
  std::optional<T> readAs(uint64_t offset) const noexcept {
    T value;
    if (!read(offset, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }
  template <typename T>
  [[nodiscard]] bool writeAs(uint64_t offset, const T& value) noexcept {
    return write(offset, std::as_bytes(std::span(&value, 1)));
  }

 private:
  friend class Queue;
  Chain(uint16_t head, std::vector<iovec>&& buffers) noexcept
      : head_(head), buffers_(std::move(buffers)) {}

  uint16_t head_;
  std::vector<iovec> buffers_;
  size_t readable_count_ = 0;
  uint64_t readable_bytes_ = 0;
  uint64_t writable_bytes_ = 0;
};

// The part [offset, offset + size) of `buffers`, appended to `out`; what is missing is left out.
void appendSlice(std::span<const iovec> buffers, uint64_t offset, uint64_t size,
                 std::vector<iovec>& out) noexcept;

struct QueueLayout {
  uint16_t size = 0;
  GuestAddress descriptors = 0;
  GuestAddress available = 0;  // "driver area"
  GuestAddress used = 0;       // "device area"
};

// Where a queue stands; with the layout, all there is to save.
struct QueuePosition {
  uint16_t next_available = 0;
  uint16_t next_used = 0;
};

class Queue {
 public:
  // Nothing when the layout breaks a rule: size not a power of two or over `max_size`, rings
  // misaligned or (partly) outside of memory.
  static std::optional<Queue> create(GuestMemory& memory, const QueueLayout& layout,
                                     uint16_t max_size, bool event_idx, bool indirect) noexcept;

  Queue(Queue&&) noexcept = default;
  Queue& operator=(Queue&&) noexcept = default;

  uint16_t size() const noexcept { return layout_.size; }
  const QueueLayout& layout() const noexcept { return layout_; }
  bool broken() const noexcept { return broken_; }
  // How many requests the driver has made available and nobody has popped.
  uint16_t available() noexcept;

  [[nodiscard]] std::optional<Chain> pop() noexcept;
  // `written`: bytes put into the writable buffers, from their start (§2.7.8).
  void push(Chain&& chain, uint32_t written) noexcept;
  void unpop(Chain&& chain) noexcept;
  void drop(Chain&& chain) noexcept;

  // Whether the driver wants an interrupt for what was pushed since the last call (§2.7.7).
  bool takeInterrupt() noexcept;

  // Notifications from the driver. enable asks for one when there are more than `known` requests,
  // and returns true when that is so already: the caller must then look again (§2.7.10).
  void disableNotifications() noexcept;
  bool enableNotifications(uint16_t known = 0) noexcept;

  QueuePosition position() const noexcept { return {next_available_, next_used_}; }
  void setPosition(const QueuePosition& position) noexcept;

 private:
  Queue(GuestMemory& memory, const QueueLayout& layout, bool event_idx, bool indirect);
  std::optional<Chain> breakQueue() noexcept;
  std::optional<uint16_t> availableIndex() noexcept;
  bool collect(uint16_t head, Chain& chain) noexcept;
  bool collectIndirect(const Descriptor& table, Chain& chain) noexcept;
  bool append(const Descriptor& descriptor, Chain& chain) noexcept;
  std::vector<iovec> takeBuffers() noexcept;
  void finish(Chain&& chain) noexcept;

  GuestMemory* memory_;
  QueueLayout layout_;
  bool event_idx_;
  bool indirect_;
  bool broken_ = false;
  uint16_t next_available_ = 0;
  uint16_t next_used_ = 0;
  uint16_t signalled_used_ = 0;            // next_used_ when takeInterrupt was last called
  bool signal_always_ = true;              // the first time there is no older index to compare with
  std::vector<bool> in_flight_;            // by head: the same request twice is a broken driver
  std::vector<std::vector<iovec>> spare_;  // buffer lists of returned chains, for reuse
};

// Pops until the ring is empty, at most size() requests: a guest that adds for ever only keeps its
// own queue busy. `handle(Chain)` returns false to stop early (it has unpopped or kept the chain).
// kMore: call again later, other devices first.
enum class DrainResult { kEmpty, kMore, kStopped, kBroken };
template <typename Handle>
DrainResult drain(Queue& queue, Handle&& handle) noexcept {
  queue.disableNotifications();
  for (uint32_t done = 0; done < queue.size();) {
    std::optional<Chain> chain = queue.pop();
    if (queue.broken()) return DrainResult::kBroken;
    if (!chain) {
      if (!queue.enableNotifications()) {
        return queue.broken() ? DrainResult::kBroken : DrainResult::kEmpty;
      }
      queue.disableNotifications();
      ++done;
      continue;
    }
    ++done;
    if (!handle(std::move(*chain))) {
      return queue.broken() ? DrainResult::kBroken : DrainResult::kStopped;
    }
  }
  return DrainResult::kMore;
}

}  // namespace hull::vmm::virtio
