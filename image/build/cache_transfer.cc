#include "image/build/cache_transfer.h"

#include <set>

namespace hull::build {

namespace {

// Bytes that are no UTF-8 become three each on the way into JSON.
constexpr size_t kDescriptionBytes = image::kMaxCacheTextBytes / 4;

}  // namespace

PackedSteps packSteps(const std::vector<StepRecord>& records,
                      std::vector<image::IngestedLayer>& layers, bool add_layers) {
  PackedSteps packed;
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < layers.size(); ++i) places.emplace(layers[i].diff_id.text(), i);
  std::set<std::string> known;
  for (const StepRecord& record : records) {
    if (packed.steps.size() == image::kMaxCacheSteps) {
      ++packed.left_out;
      continue;
    }
    if (!known.insert(record.key).second) continue;
    image::CacheStep step{record.key, record.step.created,
                          record.description.substr(0, kDescriptionBytes), std::nullopt};
    if (record.step.layer) {
      auto place = places.find(record.step.layer->diff_id.text());
      if (place == places.end()) {
        if (!add_layers || layers.size() == image::kMaxLayers) {
          ++packed.left_out;
          continue;
        }
        place = places.emplace(record.step.layer->diff_id.text(), layers.size()).first;
        layers.push_back(*record.step.layer);
      }
      step.layer = place->second;
    }
    packed.steps.push_back(std::move(step));
  }
  return packed;
}

void ImportedCache::add(const image::Image& image) {
  for (const image::CacheStep& step : image.config.build_cache) {
    CachedStep cached{step.created, std::nullopt};
    if (step.layer) {
      const image::Descriptor& blob = image.layer_blobs.at(*step.layer);
      image::IngestedLayer layer;
      layer.diff_id = image.config.diff_ids.at(*step.layer);
      layer.blob = blob.digest;
      layer.media_type = blob.media_type;
      layer.blob_bytes = blob.size;
      cached.layer = std::move(layer);
    }
    steps_.emplace(step.key, std::move(cached));
  }
}

std::optional<CachedStep> ImportedCache::find(const std::string& key) const {
  const auto found = steps_.find(key);
  if (found == steps_.end()) return std::nullopt;
  return found->second;
}

}  // namespace hull::build
