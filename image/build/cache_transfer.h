// The build cache between hosts: an image whose layers are those of steps and whose configuration
// says which step each belongs to (image::CacheStep). What comes from elsewhere is looked at only
// by the build that names it and never becomes a record of the engine's own cache: a forged step
// deceives nobody but who trusts its author. Any thread, once it is made.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image/build/cache.h"
#include "image/store/image_store.h"

namespace hull::build {

// A step as a build met it.
struct StepRecord {
  std::string key;
  CachedStep step;
  std::string description;
  int stage = 0;
};

// What the configuration of an image says about `records`. Layers that `layers` lacks are added to
// it, as many as one image may have; steps whose layer finds no place are left out, and counted.
struct PackedSteps {
  std::vector<image::CacheStep> steps;
  size_t left_out = 0;
};
PackedSteps packSteps(const std::vector<StepRecord>& records,
                      std::vector<image::IngestedLayer>& layers, bool add_layers);

class ImportedCache {
 public:
  // Its layers must stay in the store for as long as this is used. The first of several records of
  // a key counts.
  void add(const image::Image& image);
  std::optional<CachedStep> find(const std::string& key) const;
  bool empty() const { return steps_.empty(); }

 private:
  std::map<std::string, CachedStep> steps_;
};

}  // namespace hull::build
