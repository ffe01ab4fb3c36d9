#include "vmm/virtio/rng/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

namespace hull::vmm::virtio {

namespace {

uint32_t fill(const Chain& chain) noexcept {
  uint32_t written = 0;
  uint64_t left = std::min(chain.writableBytes(), RngDevice::kMaxRequestBytes);
  for (const iovec& buffer : chain.writable()) {
    size_t done = 0;
    const size_t part = std::min<uint64_t>(buffer.iov_len, left);
    while (done < part) {
      const ssize_t got =
          getrandom(static_cast<std::byte*>(buffer.iov_base) + done, part - done, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return written;
      done += static_cast<size_t>(got);
      written += static_cast<uint32_t>(got);
    }
    left -= part;
  }
  return written;
}

}  // namespace

void RngDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  queue_ = std::move(activation.queues[0]);
  notify();
}

void RngDevice::notify() noexcept {
  if (!queue_) return;
  const DrainResult result = drain(*queue_, [this](Chain&& chain) {
    const uint32_t written = fill(chain);
    queue_->push(std::move(chain), written);
    return true;
  });
  settle(*queue_, result, *host_, "rng");
}

}  // namespace hull::vmm::virtio
