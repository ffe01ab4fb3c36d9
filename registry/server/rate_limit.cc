#include "registry/server/rate_limit.h"

#include <algorithm>

namespace hull::registry {

bool RateLimit::admits(std::string_view peer, uint64_t rate, Clock::time_point now) {
  if (rate == 0) return true;
  const std::string address(peer.substr(0, peer.rfind(':')));
  const double most = std::max(1.0, static_cast<double>(rate) * kBurstSeconds);
  const std::lock_guard lock(mutex_);
  if (buckets_.size() >= kMaxLimitedAddresses) {
    // Full buckets are as good as none. If all are in use, everybody begins anew: better than to
    // grow or to refuse those who did nothing.
    std::erase_if(buckets_, [&](const auto& entry) {
      return now - entry.second.filled > std::chrono::duration<double>(kBurstSeconds);
    });
    if (buckets_.size() >= kMaxLimitedAddresses) buckets_.clear();
  }
  Bucket& bucket = buckets_.try_emplace(address, Bucket{most, now}).first->second;
  const std::chrono::duration<double> passed = now - bucket.filled;
  bucket.tokens =
      std::min(most, bucket.tokens + std::max(0.0, passed.count()) * static_cast<double>(rate));
  bucket.filled = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace hull::registry
