#include "vmm/virtio/balloon/balloon.h"

#include <algorithm>
#include <cstring>

namespace hull::vmm::virtio {

namespace {

// §5.5.4: struct virtio_balloon_config, as far as our features go.
struct ConfigSpace {
  uint32_t num_pages;
  uint32_t actual;
};
constexpr uint64_t kActualOffset = offsetof(ConfigSpace, actual);

}  // namespace

void BalloonDevice::readConfig(uint64_t offset, std::span<std::byte> into) const noexcept {
  const ConfigSpace space{target(), actual()};
  copyConfig(std::as_bytes(std::span(&space, 1)), offset, into);
}

// §5.5.5: the driver writes `actual`, nothing else.
void BalloonDevice::writeConfig(uint64_t offset, std::span<const std::byte> from) noexcept {
  uint32_t value = 0;
  if (offset != kActualOffset || from.size() != sizeof value) return;
  std::memcpy(&value, from.data(), sizeof value);
  actual_.store(value, std::memory_order_relaxed);
}

void BalloonDevice::setTarget(uint32_t pages) noexcept {
  target_.store(pages, std::memory_order_relaxed);
  if (!queues_.empty()) host_->configChanged();
}

void BalloonDevice::activate(Activation&& activation) noexcept {
  memory_ = &activation.memory;
  host_ = &activation.host;
  queues_ = std::move(activation.queues);
  notify();
}

void BalloonDevice::reset() noexcept {
  queues_.clear();
  actual_.store(0, std::memory_order_relaxed);
}

std::vector<QueuePosition> BalloonDevice::queuePositions() const noexcept {
  std::vector<QueuePosition> positions;
  for (const Queue& queue : queues_) positions.push_back(queue.position());
  return positions;
}

void BalloonDevice::save(ByteWriter& out) const {
  out.u32(target());
  out.u32(actual());
}

bool BalloonDevice::load(ByteReader& in) {
  target_.store(in.u32(), std::memory_order_relaxed);
  actual_.store(in.u32(), std::memory_order_relaxed);
  return in.ok();
}

void BalloonDevice::notify() noexcept {
  for (size_t i = 0; i < queues_.size(); ++i) serve(i);
}

void BalloonDevice::serve(size_t index) noexcept {
  Queue& queue = queues_[index];
  const DrainResult result = drain(queue, [&](Chain&& chain) {
    if (index == kInflate) inflate(chain);
    if (index == kReporting) report(chain);
    // Deflating needs no work: the guest's next touch brings the page back.
    queue.push(std::move(chain), 0);
    return true;
  });
  settle(queue, result, *host_, "balloon");
}

// §5.5.6: little-endian 32-bit page numbers, one after the other. Neighbours are dropped together.
void BalloonDevice::inflate(const Chain& chain) noexcept {
  uint64_t start = 0, count = 0;
  const auto drop = [&] {
    if (count > 0) memory_->discard(start * kPageBytes, count * kPageBytes);
  };
  const uint64_t pages =
      std::min<uint64_t>(chain.readableBytes() / sizeof(uint32_t), kMaxPagesPerRequest);
  for (uint64_t i = 0; i < pages; ++i) {
    const auto page = chain.readAs<uint32_t>(i * sizeof(uint32_t));
    if (!page) break;
    if (count > 0 && *page == start + count) {
      ++count;
      continue;
    }
    drop();
    start = *page;
    count = 1;
  }
  drop();
}

// §5.5.6.7: the buffers themselves are the free memory.
void BalloonDevice::report(const Chain& chain) noexcept {
  for (const iovec& buffer : chain.writable()) reported_bytes_ += memory_->discard(buffer);
}

}  // namespace hull::vmm::virtio
