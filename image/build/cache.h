// What earlier builds made, by content: a step's key → its layer (or none) and when it was made.
// SQLite (<store root>/build.db). While the cache is open its layers are pinned in the store; what
// was used longest ago goes when the layers are more than the limit. One object for a store, shared
// by all builds: open() finds it. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/store/image_store.h"

namespace hull::build {

inline constexpr uint64_t kDefaultCacheBytes = uint64_t{20} << 30;

struct CachedStep {
  std::string created;  // RFC 3339
  std::optional<image::IngestedLayer> layer;
};

struct CacheRecord {
  std::string key;
  std::string description;  // "RUN make"
  uint64_t bytes = 0;       // of the layer, as it is kept
  int64_t created_at = 0;   // seconds since 1970
  int64_t used_at = 0;
  int64_t uses = 0;
  bool shared = false;  // another record has the same layer
};

class BuildCache {
 public:
  // The store's cache; it is closed with the last pointer.
  static std::shared_ptr<BuildCache> open(image::ImageStore& store);
  ~BuildCache();

  // Waits until no one else makes the step of `key`, and holds it for the token's lifetime. `check`
  // is called while waiting and may throw.
  std::shared_ptr<void> begin(const std::string& key, const std::function<void()>& check);

  // Pins the layer for `pin`'s lifetime when there is one.
  std::optional<CachedStep> find(const std::string& key, std::shared_ptr<void>& pin);
  // Evicts what the limit demands.
  void record(const std::string& key, const CachedStep& step, const std::string& description);

  std::vector<CacheRecord> list();  // what was used last comes last
  void setLimit(uint64_t bytes);

  struct Prune {
    int64_t used_before = INT64_MAX;  // seconds since 1970
    uint64_t keep_bytes = 0;          // the latest used of this size stay
  };
  // The keys that are gone. Their layers go with the store's next collection, unless something else
  // has them.
  std::vector<std::string> prune(const Prune& options);

 private:
  struct State;
  explicit BuildCache(image::ImageStore& store);
  std::unique_ptr<State> state_;
};

}  // namespace hull::build
