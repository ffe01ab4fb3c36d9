// Images: list, inspect, history, tag, remove, prune, search.
#include <fnmatch.h>

#include <algorithm>

#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/api/time_query.h"

namespace hull::engine::api {

namespace {

void publish(Engine& engine, const char* action, const std::string& id, const std::string& name) {
  engine.events().publish({"image", action, id, {{"name", name}}, 0});
}

// "debian", "debian:12", "registry/*": the name alone means any tag.
bool referenceFits(const std::string& wanted, const image::Reference& name) {
  const auto fits = [&](const std::string& text) {
    return fnmatch(wanted.c_str(), text.c_str(), FNM_PATHNAME) == 0;
  };
  return fits(name.familiar()) || fits(name.familiarName()) || fits(name.text()) ||
         fits(name.name());
}

// Only names that fit are shown; an image without one is not.
bool keepFittingNames(const std::vector<std::string>& wanted, image::Image& image) {
  if (wanted.empty()) return true;
  for (auto* names : {&image.tags, &image.digests}) {
    std::erase_if(*names, [&](const image::Reference& name) {
      return std::none_of(wanted.begin(), wanted.end(),
                          [&](const auto& pattern) { return referenceFits(pattern, name); });
    });
  }
  return !image.tags.empty() || !image.digests.empty();
}

bool imageFits(Engine& engine, const Filters& filters, const image::Image& image) {
  const bool dangling_fits =
      !filters.has("dangling") || filters.flag("dangling", false) == image.tags.empty();
  const int64_t created = parseTime(image.config.created);
  const auto other = [&](const char* key) {
    return parseTime(engine.images().get(filters.get(key).front()).config.created);
  };
  if (filters.has("before") && created >= other("before")) return false;
  if (filters.has("since") && created <= other("since")) return false;
  if (filters.has("until")) {
    const auto until = timeQuery(filters.get("until").front());
    if (until && created > *until) return false;
  }
  return dangling_fits && filters.labelsFit(image.config.config.labels);
}

void list(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const Filters filters(query.get("filters"),
                        {"before", "dangling", "label", "label!", "reference", "since", "until"});
  Json images = Json::array();
  std::vector<std::string> names = filters.get("reference");
  if (query.has("filter")) names.push_back(query.get("filter"));
  std::optional<image::ImageStore::Usage> usage;
  if (query.flag("shared-size")) usage = engine.images().usage();
  const auto shared = [&](const image::Digest& id) {
    return usage ? static_cast<int64_t>(usage->shared[id]) : int64_t{-1};
  };
  for (auto& image : engine.images().list()) {
    if (!imageFits(engine, filters, image) || !keepFittingNames(names, image)) continue;
    Json summary = imageSummary(image, -1, shared(image.id));
    if (query.flag("manifests")) summary["Manifests"] = imageManifests(engine, image);
    images.push_back(std::move(summary));
  }
  exchange.json(200, dump(images));
}

void remove(Exchange& exchange, Engine& engine) {
  const std::string name = exchange.parameter(0);
  const auto removed = engine.images().remove(
      name, exchange.request().query.flag("force"),
      [&](const image::Digest& id) { return engine.containers().usesImage(id); });
  Json items = Json::array();
  for (const auto& item : removed) {
    const bool deleted = item.outcome == image::RemoveOutcome::kDeleted;
    items.push_back({{deleted ? "Deleted" : "Untagged", item.name}});
    publish(engine, deleted ? "delete" : "untag", item.name, item.name);
  }
  engine.images().collectGarbage();
  exchange.json(200, dump(items));
}

void tag(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const auto image = engine.images().get(exchange.parameter(0));
  const std::string tag = query.get("tag");
  const std::string repository = query.get("repo");
  if (repository == "sha256" || repository == "sha512") {
    throw Error(ErrorKind::kInvalidArgument,
                "tag: \"" + repository + "\" would be taken for the beginning of a digest");
  }
  // One that is an image's id is no name with a tag either.
  (void)image::Reference::parse(repository);
  const auto name = image::Reference::parse(repository + (tag.empty() ? "" : ":" + tag));
  engine.images().tag(image.id, name);
  publish(engine, "tag", image.id.text(), name.familiar());
  exchange.empty(201);
}

// What the store's blobs and layers take. Removing an image already collects what it leaves, so
// only the difference tells what a prune gave back.
uint64_t storedBytes(image::ImageStore& images) {
  uint64_t total = 0;
  images.blobs().forEach([&](const image::Digest&, uint64_t size) { total += size; });
  images.layers().forEach([&](const image::Digest& diff_id) {
    try {
      total += images.layers().dataBytes(diff_id);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;  // removed meanwhile
    }
  });
  return total;
}

void prune(Exchange& exchange, Engine& engine) {
  const Filters filters(exchange.request().query.get("filters"),
                        {"dangling", "label", "label!", "until"});
  const bool only_dangling = filters.flag("dangling", true);
  const uint64_t before = storedBytes(engine.images());
  Json deleted = Json::array();
  for (const auto& image : engine.images().list()) {
    if (only_dangling && !image.tags.empty()) continue;
    if (!filters.labelsFit(image.config.config.labels)) continue;
    if (filters.has("until")) {
      const auto until = timeQuery(filters.get("until").front());
      if (until && parseTime(image.config.created) > *until) continue;
    }
    if (engine.containers().usesImage(image.id)) continue;
    try {
      for (const auto& item : engine.images().remove(image.id.text(), true, [&](const auto& id) {
             return engine.containers().usesImage(id);
           })) {
        const bool gone = item.outcome == image::RemoveOutcome::kDeleted;
        deleted.push_back({{gone ? "Deleted" : "Untagged", item.name}});
      }
    } catch (const Error&) {
      continue;  // in use or gone meanwhile
    }
  }
  engine.images().collectGarbage();
  const uint64_t after = std::min(before, storedBytes(engine.images()));
  exchange.json(200, dump({{"ImagesDeleted", deleted.empty() ? Json() : deleted},
                           {"SpaceReclaimed", before - after}}));
}

}  // namespace

void addImageRoutes(Router& router, Engine& engine) {
  router.add("GET", "/images/json", [&](Exchange& e) { list(e, engine); });
  router.add("GET", "/images/search", [](Exchange& e) { e.json(200, "[]\n"); });
  router.add("POST", "/images/prune", [&](Exchange& e) { prune(e, engine); });
  router.add("GET", "/images/{name*}/json", [&](Exchange& e) {
    e.json(200, dump(imageJson(engine.images().get(e.parameter(0)))));
  });
  router.add("GET", "/images/{name*}/history", [&](Exchange& e) {
    e.json(200, dump(imageHistory(engine.images(), engine.images().get(e.parameter(0)))));
  });
  router.add("POST", "/images/{name*}/tag", [&](Exchange& e) { tag(e, engine); });
  router.add("DELETE", "/images/{name*}", [&](Exchange& e) { remove(e, engine); });
}

}  // namespace hull::engine::api
