#include "vmm/virtio/queue/queue.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

namespace hull::vmm::virtio {

namespace {

// virtio 1.2 §2.7: alignment and size of the three parts, sizes with the event idx field.
constexpr uint64_t kDescriptorAlignment = 16;
constexpr uint64_t kAvailableAlignment = 2;
constexpr uint64_t kUsedAlignment = 4;
constexpr uint64_t kAvailableHeaderBytes = 4;  // flags, idx
constexpr uint64_t kUsedHeaderBytes = 4;
constexpr uint64_t kUsedElementBytes = 8;
constexpr uint64_t kRingIndexOffset = 2;
constexpr uint16_t kAvailableNoInterrupt = 1;
constexpr uint16_t kUsedNoNotify = 1;
constexpr uint32_t kMaxIndirectEntries = 32768;
constexpr uint64_t kMaxChainBytes = uint64_t{1} << 32;  // §2.7.5

struct UsedElement {
  uint32_t id;
  uint32_t length;
};

uint64_t availableBytes(uint64_t size) {
  return kAvailableHeaderBytes + size * sizeof(uint16_t) + sizeof(uint16_t);
}
uint64_t usedBytes(uint64_t size) {
  return kUsedHeaderBytes + size * kUsedElementBytes + sizeof(uint16_t);
}

template <typename Copy>
bool copyAcross(std::span<const iovec> buffers, uint64_t offset, size_t size,
                Copy&& copy) noexcept {
  size_t done = 0;
  for (const iovec& buffer : buffers) {
    if (done == size) break;
    if (offset >= buffer.iov_len) {
      offset -= buffer.iov_len;
      continue;
    }
    const size_t part = std::min(size - done, buffer.iov_len - offset);
    copy(static_cast<std::byte*>(buffer.iov_base) + offset, done, part);
    asm volatile("" ::: "memory");  // the copy is what gets checked, see guest_memory.cc
    done += part;
    offset = 0;
  }
  return done == size;
}

}  // namespace

bool Chain::read(uint64_t offset, std::span<std::byte> into) const noexcept {
  if (offset > readable_bytes_ || into.size() > readable_bytes_ - offset) return false;
  return copyAcross(readable(), offset, into.size(),
                    [&](const std::byte* guest, size_t done, size_t part) {
                      std::memcpy(into.data() + done, guest, part);
                    });
}

bool Chain::write(uint64_t offset, std::span<const std::byte> from) noexcept {
  if (offset > writable_bytes_ || from.size() > writable_bytes_ - offset) return false;
  return copyAcross(writable(), offset, from.size(),
                    [&](std::byte* guest, size_t done, size_t part) {
                      std::memcpy(guest, from.data() + done, part);
                    });
}

void appendSlice(std::span<const iovec> buffers, uint64_t offset, uint64_t size,
                 std::vector<iovec>& out) noexcept {
  for (const iovec& buffer : buffers) {
    if (size == 0) return;
    if (offset >= buffer.iov_len) {
      offset -= buffer.iov_len;
      continue;
    }
    const size_t part = std::min<uint64_t>(size, buffer.iov_len - offset);
    out.push_back({static_cast<std::byte*>(buffer.iov_base) + offset, part});
    size -= part;
    offset = 0;
  }
}

std::optional<Queue> Queue::create(GuestMemory& memory, const QueueLayout& layout,
                                   uint16_t max_size, bool event_idx, bool indirect) noexcept {
  if (!std::has_single_bit(layout.size) || layout.size > max_size) return std::nullopt;
  if (layout.descriptors % kDescriptorAlignment != 0 ||
      layout.available % kAvailableAlignment != 0 || layout.used % kUsedAlignment != 0) {
    return std::nullopt;
  }
  if (!memory.contains(layout.descriptors, uint64_t{layout.size} * sizeof(Descriptor)) ||
      !memory.contains(layout.available, availableBytes(layout.size)) ||
      !memory.contains(layout.used, usedBytes(layout.size))) {
    return std::nullopt;
  }
  return Queue(memory, layout, event_idx, indirect);
}

Queue::Queue(GuestMemory& memory, const QueueLayout& layout, bool event_idx, bool indirect)
    : memory_(&memory),
      layout_(layout),
      event_idx_(event_idx),
      indirect_(indirect),
      in_flight_(layout.size) {
  spare_.reserve(layout.size);
}

std::optional<Chain> Queue::breakQueue() noexcept {
  broken_ = true;
  return std::nullopt;
}

// The driver's index, or nothing when the ring is broken: it may run ahead of us by at most the
// size of the ring (§2.7.13.3.1: never more outstanding than there are descriptors).
std::optional<uint16_t> Queue::availableIndex() noexcept {
  if (broken_) return std::nullopt;
  const auto index = memory_->loadAcquire(layout_.available + kRingIndexOffset);
  if (!index || static_cast<uint16_t>(*index - next_available_) > layout_.size) {
    broken_ = true;
    return std::nullopt;
  }
  return index;
}

uint16_t Queue::available() noexcept {
  const auto index = availableIndex();
  return index ? static_cast<uint16_t>(*index - next_available_) : uint16_t{0};
}

std::optional<Chain> Queue::pop() noexcept {
  if (available() == 0) return std::nullopt;
  const uint64_t slot = next_available_ & (layout_.size - 1);
  const auto head =
      memory_->read<uint16_t>(layout_.available + kAvailableHeaderBytes + slot * sizeof(uint16_t));
  if (!head || *head >= layout_.size || in_flight_[*head]) return breakQueue();
  Chain chain(*head, takeBuffers());
  if (!collect(*head, chain)) return breakQueue();
  in_flight_[*head] = true;
  ++next_available_;
  return chain;
}

// Follows the chain in the descriptor table. A chain has at most as many descriptors as the queue
// (§2.7.5.3.1), which also ends loops.
bool Queue::collect(uint16_t head, Chain& chain) noexcept {
  uint16_t index = head;
  for (uint32_t count = 0; count < layout_.size; ++count) {
    const auto descriptor =
        memory_->read<Descriptor>(layout_.descriptors + uint64_t{index} * sizeof(Descriptor));
    if (!descriptor) return false;
    if ((descriptor->flags & kDescriptorIndirect) != 0) {
      // §2.7.5.3.1: only with the feature, and never together with NEXT. WRITE is to be ignored.
      if (!indirect_ || (descriptor->flags & kDescriptorNext) != 0) return false;
      return collectIndirect(*descriptor, chain);
    }
    if (!append(*descriptor, chain)) return false;
    if ((descriptor->flags & kDescriptorNext) == 0) return true;
    if (descriptor->next >= layout_.size) return false;
    index = descriptor->next;
  }
  return false;
}

bool Queue::collectIndirect(const Descriptor& table, Chain& chain) noexcept {
  const uint32_t entries = table.length / sizeof(Descriptor);
  if (entries == 0 || entries > kMaxIndirectEntries) return false;
  if (table.length % sizeof(Descriptor) != 0) return false;
  if (!memory_->contains(table.address, table.length)) return false;
  uint16_t index = 0;
  const uint32_t limit = std::min<uint32_t>(entries, layout_.size);
  for (uint32_t count = 0; count < limit; ++count) {
    const auto descriptor =
        memory_->read<Descriptor>(table.address + uint64_t{index} * sizeof(Descriptor));
    // §2.7.5.3.1: no indirect descriptors inside an indirect table.
    if (!descriptor || (descriptor->flags & kDescriptorIndirect) != 0) return false;
    if (!append(*descriptor, chain)) return false;
    if ((descriptor->flags & kDescriptorNext) == 0) return true;
    if (descriptor->next >= entries) return false;
    index = descriptor->next;
  }
  return false;
}

bool Queue::append(const Descriptor& descriptor, Chain& chain) noexcept {
  const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
  // §2.7.4.2: device-readable before device-writable.
  if (!writable && chain.buffers_.size() > chain.readable_count_) return false;
  if (descriptor.length == 0) return true;  // says nothing, costs nothing
  const auto buffer = memory_->iovecOf(descriptor.address, descriptor.length);
  if (!buffer) return false;
  uint64_t& total = writable ? chain.writable_bytes_ : chain.readable_bytes_;
  total += descriptor.length;
  if (chain.readable_bytes_ + chain.writable_bytes_ > kMaxChainBytes) return false;
  chain.buffers_.push_back(*buffer);
  if (!writable) ++chain.readable_count_;
  return true;
}

std::vector<iovec> Queue::takeBuffers() noexcept {
  if (spare_.empty()) return {};
  std::vector<iovec> buffers = std::move(spare_.back());
  spare_.pop_back();
  return buffers;
}

void Queue::finish(Chain&& chain) noexcept {
  in_flight_[chain.head_] = false;
  chain.buffers_.clear();
  if (spare_.size() < layout_.size) spare_.push_back(std::move(chain.buffers_));
}

void Queue::push(Chain&& chain, uint32_t written) noexcept {
  const UsedElement element{chain.head_, written};
  finish(std::move(chain));
  const uint64_t slot = next_used_ & (layout_.size - 1);
  ++next_used_;
  if (!memory_->write(layout_.used + kUsedHeaderBytes + slot * kUsedElementBytes, element) ||
      !memory_->storeRelease(layout_.used + kRingIndexOffset, next_used_)) {
    broken_ = true;  // cannot happen: create() has checked the ring
  }
}

void Queue::unpop(Chain&& chain) noexcept {
  finish(std::move(chain));
  --next_available_;
}

void Queue::drop(Chain&& chain) noexcept {
  finish(std::move(chain));
}

bool Queue::takeInterrupt() noexcept {
  const uint16_t before = std::exchange(signalled_used_, next_used_);
  if (before == next_used_ || broken_) return false;
  // The used index must be visible before we read whether the driver wants to know (§2.7.13.4).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (std::exchange(signal_always_, false)) return true;
  if (!event_idx_) {
    const auto flags = memory_->loadAcquire(layout_.available);
    return !flags || (*flags & kAvailableNoInterrupt) == 0;
  }
  const auto used_event = memory_->loadAcquire(layout_.available + kAvailableHeaderBytes +
                                               layout_.size * sizeof(uint16_t));
  if (!used_event) return true;
  // §2.7.7.2, vring_need_event: did we pass the index the driver waits for?
  return static_cast<uint16_t>(next_used_ - *used_event - 1) <
         static_cast<uint16_t>(next_used_ - before);
}

void Queue::disableNotifications() noexcept {
  // With event idx, an avail_event that is not moved along has the same effect, for nothing.
  if (!event_idx_ && !memory_->storeRelease(layout_.used, kUsedNoNotify)) broken_ = true;
}

bool Queue::enableNotifications(uint16_t known) noexcept {
  const GuestAddress field =
      event_idx_ ? layout_.used + kUsedHeaderBytes + layout_.size * kUsedElementBytes
                 : layout_.used;
  const auto beyond = static_cast<uint16_t>(next_available_ + known);
  const uint16_t value = event_idx_ ? beyond : uint16_t{0};
  if (!memory_->storeRelease(field, value)) broken_ = true;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return available() > known;
}

void Queue::setPosition(const QueuePosition& position) noexcept {
  next_available_ = position.next_available;
  next_used_ = position.next_used;
  signalled_used_ = position.next_used;
  signal_always_ = true;
}

}  // namespace hull::vmm::virtio
