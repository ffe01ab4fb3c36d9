// Rate limits of disks and network: token buckets that fill with time up to a burst. A request is
// let through while there is a token left, and may leave a debt, so one larger than the burst is
// only late, never stuck.
//
// Owner: a device. Device thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "vmm/config/vm_config.h"

namespace hull::vmm {

class TokenBucket {
 public:
  using Clock = std::chrono::steady_clock;

  // Full at first.
  void configure(const Rate& rate, Clock::time_point now) noexcept {
    per_second_ = static_cast<double>(rate.per_second);
    burst_ = static_cast<double>(rate.burst != 0 ? rate.burst : rate.per_second);
    tokens_ = burst_;
    filled_ = now;
  }
  bool limited() const noexcept { return per_second_ > 0; }
  bool ready(Clock::time_point now) noexcept {
    if (!limited()) return true;
    fill(now);
    return tokens_ >= 1;
  }
  void take(uint64_t amount) noexcept {
    if (limited()) tokens_ -= static_cast<double>(amount);
  }
  // How long until ready(); 0 when it is.
  std::chrono::milliseconds wait(Clock::time_point now) noexcept {
    if (ready(now)) return std::chrono::milliseconds::zero();
    // A whole token, so that the answer is not an endless row of short waits.
    const std::chrono::duration<double> seconds((1 - tokens_) / per_second_);
    constexpr std::chrono::hours kLongest{1};
    return std::chrono::ceil<std::chrono::milliseconds>(
        std::min<std::chrono::duration<double>>(seconds, kLongest));
  }

 private:
  void fill(Clock::time_point now) noexcept {
    const std::chrono::duration<double> passed = now - std::exchange(filled_, now);
    tokens_ = std::min(burst_, tokens_ + passed.count() * per_second_);
  }

  double per_second_ = 0;
  double burst_ = 0;
  double tokens_ = 0;
  Clock::time_point filled_;
};

// Both limits of one direction.
class Throttle {
 public:
  using Clock = TokenBucket::Clock;

  void configure(const IoLimits& limits) noexcept {
    const auto now = Clock::now();
    bytes_.configure(limits.bytes, now);
    operations_.configure(limits.operations, now);
  }
  bool limited() const noexcept { return bytes_.limited() || operations_.limited(); }
  bool ready() noexcept {
    if (!limited()) return true;
    const auto now = Clock::now();
    return bytes_.ready(now) && operations_.ready(now);
  }
  void take(uint64_t bytes) noexcept {
    bytes_.take(bytes);
    operations_.take(1);
  }
  std::chrono::milliseconds wait() noexcept {
    const auto now = Clock::now();
    return std::max(bytes_.wait(now), operations_.wait(now));
  }

 private:
  TokenBucket bytes_, operations_;
};

}  // namespace hull::vmm
