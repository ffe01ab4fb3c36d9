#include "vmm/virtio/console/console.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace hull::vmm::virtio {

void BoundedOutput::refill() noexcept {
  const auto now = Clock::now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - refilled_);
  const auto earned = static_cast<uint64_t>(elapsed.count()) * kBytesPerSecond / 1000;
  if (earned == 0) return;
  budget_ = std::min(budget_ + earned, kBurstBytes);
  refilled_ = now;
}

// In pieces of PIPE_BUF: when poll says writable, a pipe takes that much without blocking, and the
// descriptor's own flags, which others may share, stay as they are.
void BoundedOutput::write(std::span<const std::byte> bytes) noexcept {
  if (fd_ < 0) return;
  refill();
  const uint64_t allowed = std::min(budget_, kMaxTotalBytes - total_);
  bytes = bytes.first(std::min<uint64_t>(bytes.size(), allowed));
  while (!bytes.empty()) {
    pollfd ready{fd_, POLLOUT, 0};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return;
    const ssize_t put = ::write(fd_, bytes.data(), std::min<size_t>(bytes.size(), PIPE_BUF));
    if (put <= 0) return;
    const auto count = static_cast<uint64_t>(put);
    budget_ -= count;
    total_ += count;
    bytes = bytes.subspan(count);
  }
}

void ConsoleDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  receive_ = std::move(activation.queues[0]);
  transmit_ = std::move(activation.queues[1]);
  notify();
}

void ConsoleDevice::reset() noexcept {
  receive_.reset();
  transmit_.reset();
}

std::vector<QueuePosition> ConsoleDevice::queuePositions() const noexcept {
  return {receive_->position(), transmit_->position()};
}

void ConsoleDevice::notify() noexcept {
  if (!transmit_) return;
  const DrainResult result = drain(*transmit_, [this](Chain&& chain) {
    uint64_t left = std::min<uint64_t>(chain.readableBytes(), kMaxRequestBytes);
    for (const iovec& buffer : chain.readable()) {
      const size_t part = std::min<uint64_t>(buffer.iov_len, left);
      output_.write({static_cast<const std::byte*>(buffer.iov_base), part});
      left -= part;
    }
    transmit_->push(std::move(chain), 0);
    return true;
  });
  settle(*transmit_, result, *host_, "console");
}

}  // namespace hull::vmm::virtio
