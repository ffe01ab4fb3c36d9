#include "daemon/api/build_cache.h"

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

using nlohmann::json;

namespace {

json listOf(const Query& query, const char* key) {
  const std::string text = query.get(key);
  if (text.empty()) return json::array();
  const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (list.is_null()) return json::array();  // as Docker's client says "none"
  if (!list.is_array()) fields::wrongType(key, "a list");
  if (list.size() > kMaxBuildCaches) {
    throw Error(ErrorKind::kTooLarge,
                std::string(key) + ": more than " + std::to_string(kMaxBuildCaches) + " caches");
  }
  return list;
}

void addSources(const Query& query, const char* key, bool fetch,
                std::vector<build::BuildRequest::CacheSource>& sources) {
  for (const json& item : listOf(query, key)) {
    if (!item.is_string()) fields::wrongType(key, "a list of names");
    sources.push_back({item.get<std::string>(), fetch});
  }
}

std::string textOf(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return {};
  if (!found->is_string()) fields::wrongType(key, "a text");
  return found->get<std::string>();
}

// The name belongs to the cache for as long as a push takes; then to whatever had it before.
class BorrowedName {
 public:
  BorrowedName(image::ImageStore& images, const image::Reference& name, const image::Digest& image)
      : images_(images), name_(name), before_(images.find(name.text())) {
    images_.tag(image, name_);
  }
  ~BorrowedName() {
    try {
      if (before_)
        images_.tag(before_->id, name_);
      else
        images_.remove(name_.text(), true, [](const image::Digest&) { return false; });
    } catch (const std::exception& error) {
      log::warning("give back the name " + name_.text() + ": " + error.what());
    }
  }
  BorrowedName(const BorrowedName&) = delete;
  BorrowedName& operator=(const BorrowedName&) = delete;

 private:
  image::ImageStore& images_;
  const image::Reference name_;
  const std::optional<image::Image> before_;
};

std::vector<image::IngestedLayer> layersOf(const image::Image& image) {
  std::vector<image::IngestedLayer> layers;
  for (size_t i = 0; i < image.layer_blobs.size(); ++i) {
    image::IngestedLayer layer;
    layer.diff_id = image.config.diff_ids[i];
    layer.blob = image.layer_blobs[i].digest;
    layer.media_type = image.layer_blobs[i].media_type;
    layer.blob_bytes = image.layer_blobs[i].size;
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace

std::vector<build::BuildRequest::CacheSource> cacheSources(const Query& query) {
  std::vector<build::BuildRequest::CacheSource> sources;
  addSources(query, "cachefrom", false, sources);
  addSources(query, "hullcachefrom", true, sources);
  return sources;
}

CacheTargets cacheTargets(const Query& query) {
  CacheTargets targets;
  for (const json& item : listOf(query, "hullcacheto")) {
    if (!item.is_object()) fields::wrongType("hullcacheto", "a list of objects");
    const std::string type = textOf(item, "type"), mode = textOf(item, "mode");
    if (!mode.empty() && mode != "min" && mode != "max")
      throw Error(ErrorKind::kInvalidArgument, "cache mode \"" + mode + "\": min or max");
    if (type == "inline") {
      targets.in_image = true;
      continue;
    }
    if (type == "local")
      targets.to_client = true;
    else if (type == "registry")
      targets.registries.push_back(image::Reference::parse(textOf(item, "ref")));
    else
      throw Error(ErrorKind::kInvalidArgument,
                  "cache type \"" + type + "\": registry, local or inline");
    if (mode == "max")
      targets.mode = build::CacheMode::kMax;
    else if (!targets.mode)
      targets.mode = build::CacheMode::kMin;
  }
  return targets;
}

void deliverCache(JsonStream& stream, Engine& engine, const CacheTargets& targets,
                  const image::Image& cache, const CredentialsFunction& credentials) {
  image::ImageStore& images = engine.images();
  const std::vector<image::IngestedLayer> layers = layersOf(cache);
  std::vector<image::Digest> needed;
  for (const auto& layer : layers) needed.insert(needed.end(), {layer.diff_id, layer.blob});
  const auto pin = images.pinLayers(needed);
  registry::ClientOptions options = engine.options().registry;
  options.cancelled = stream.cancelFunction();
  for (const auto& name : targets.registries) {
    inContext("export the cache to " + name.familiar(), [&] {
      const image::Image made = images.create(cache.config, layers, {});
      const BorrowedName borrowed(images, name, made.id);
      engine.parts().push(images, name, credentials(name.registry), options,
                          [&](const image::LayerProgress& p) { stream.progress(p); });
    });
  }
  if (targets.to_client) {
    images.create(cache.config, layers, {});
    stream.line({{"aux", {{"CacheID", cache.id.text()}}}});
  } else if (images.find(cache.id.text())) {
    images.remove(cache.id.text(), true, [](const image::Digest&) { return false; });
  }
}

}  // namespace hull::engine::api
