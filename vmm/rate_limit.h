// Keeps a guest from filling the host's log: at most kMaxLinesPerSecond lines a second from each
// place that asks. Any thread, lock-free.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>

namespace hull::vmm {

class RateLimit {
 public:
  static constexpr uint32_t kMaxLinesPerSecond = 5;

  bool allow() noexcept {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t second = second_.load(std::memory_order_relaxed);
    if (second != now.tv_sec && second_.compare_exchange_strong(second, now.tv_sec)) used_ = 0;
    return used_.fetch_add(1, std::memory_order_relaxed) < kMaxLinesPerSecond;
  }

 private:
  std::atomic<int64_t> second_ = 0;
  std::atomic<uint32_t> used_ = 0;
};

}  // namespace hull::vmm
