// How often one address may ask: a token bucket per address, within a bounded number of addresses.
// Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace hull::registry {

inline constexpr size_t kMaxLimitedAddresses = 16384;
inline constexpr double kBurstSeconds = 10;  // how much of the rate may come at once

class RateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  // False: too many. `rate` in requests per second, 0: no limit. `peer` may have a port.
  bool admits(std::string_view peer, uint64_t rate, Clock::time_point now = Clock::now());

 private:
  struct Bucket {
    double tokens;
    Clock::time_point filled;
  };
  std::mutex mutex_;
  std::unordered_map<std::string, Bucket> buckets_;  // guarded by mutex_
};

}  // namespace hull::registry
