// What earlier builds made, by content: a step's key → its layer (or none) and when it was made.
// SQLite (<store root>/build.db); a record whose layer has been collected is no record. Any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "image/store/image_store.h"

namespace hull::build {

struct CachedStep {
  std::string created;  // RFC 3339
  std::optional<image::IngestedLayer> layer;
};

class BuildCache {
 public:
  explicit BuildCache(image::ImageStore& store);
  ~BuildCache();

  // Pins the layer for `pin`'s lifetime when there is one.
  std::optional<CachedStep> find(const std::string& key, std::shared_ptr<void>& pin);
  void record(const std::string& key, const CachedStep& step);
  uint64_t clear();  // forgets everything; returns how many records

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::build
