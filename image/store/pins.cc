#include "image/store/pins.h"

namespace hull::image {

std::shared_ptr<void> PinSet::pin(const std::vector<Digest>& digests, const Guard&) {
  // Made first, so that nothing can fail between counting and owning.
  struct Token {
    std::shared_ptr<PinSet> set;
    std::vector<Digest> digests;
    bool counted = false;
    ~Token() {
      if (counted) set->unpin(digests);
    }
  };
  auto token = std::make_shared<Token>(Token{shared_from_this(), digests});
  const std::lock_guard lock(mutex_);
  for (const Digest& digest : digests) ++counts_[digest];
  token->counted = true;
  return token;
}

std::set<Digest> PinSet::pinned() const {
  const std::lock_guard lock(mutex_);
  std::set<Digest> result;
  for (const auto& [digest, count] : counts_) result.insert(digest);
  return result;
}

void PinSet::unpin(const std::vector<Digest>& digests) {
  const std::lock_guard lock(mutex_);
  for (const Digest& digest : digests) {
    const auto it = counts_.find(digest);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
  }
}

}  // namespace hull::image
