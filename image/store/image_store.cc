#include "image/store/image_store.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "image/store/image_state.h"

namespace hull::image {

ImageStore::ImageStore(const std::string& root, LayerLimits limits)
    : state_(std::make_unique<State>(root, limits)) {}
ImageStore::~ImageStore() = default;

BlobStore& ImageStore::blobs() {
  return state_->blobs;
}
LayerStore& ImageStore::layers() {
  return state_->layers;
}

std::optional<Image> ImageStore::find(std::string_view name) const {
  const auto id = state_->resolve(name);
  if (!id) return std::nullopt;
  return state_->load(*id);
}

Image ImageStore::get(std::string_view name) const {
  if (auto image = find(name)) return std::move(*image);
  std::string shown(name);
  const bool is_id = name.starts_with("sha256:") || name.size() == 64;
  if (!is_id) shown = Reference::parse(name).familiar();
  throw Error(ErrorKind::kNotFound, "No such image: " + shown);
}

std::vector<Image> ImageStore::list() const {
  std::vector<Image> images;
  for (const Digest& id : state_->ids()) {
    try {
      images.push_back(state_->load(id));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;  // removed meanwhile
    }
  }
  // Dates are RFC 3339 in UTC, so text order is time order; equal ones stay in order of arrival.
  std::stable_sort(images.begin(), images.end(), [](const Image& a, const Image& b) {
    return a.config.created > b.config.created;
  });
  return images;
}

void ImageStore::tag(const Digest& image, const Reference& name) {
  if (!name.digest.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "refusing to create a tag with a digest reference: " + name.familiar());
  }
  state_->load(image);  // throws when there is none
  const auto lock = state_->database.lock();
  state_->setName(image, name);
}

void ImageStore::recordDigest(const Digest& image, const Reference& name) {
  if (name.digest.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "name " + name.familiar() + " has no digest");
  }
  const auto lock = state_->database.lock();
  state_->setName(image, name);
}

namespace {

// Docker's rule for removing by id: at most one tag, and everything in one repository.
bool hasOneName(const Image& image) {
  if (image.tags.size() > 1) return false;
  std::vector<Reference> all = image.tags;
  all.insert(all.end(), image.digests.begin(), image.digests.end());
  return std::all_of(all.begin(), all.end(), [&](const Reference& reference) {
    return reference.name() == all.front().name();
  });
}

// What untagging by `name` removes: the tag itself, and digests of a repository left without tags.
std::vector<Reference> namesToRemove(const Image& image, const Reference& name) {
  std::vector<Reference> gone;
  bool repository_left = false;
  for (const Reference& tag : image.tags) {
    if (tag == name) {
      gone.push_back(tag);
    } else if (tag.name() == name.name()) {
      repository_left = true;
    }
  }
  for (const Reference& digest : image.digests) {
    const bool named = digest.name() == name.name() && digest.digest == name.digest;
    const bool orphan = name.digest.empty() && digest.name() == name.name() && !repository_left;
    if (named || orphan) gone.push_back(digest);
  }
  return gone;
}

Error conflict(const std::string& what, const std::string& why) {
  return Error(ErrorKind::kConflict, "conflict: unable to " + what + " (must be forced) - " + why);
}

}  // namespace

std::vector<RemovedItem> ImageStore::remove(std::string_view name, bool force,
                                            const std::function<bool(const Digest&)>& in_use) {
  const Image image = get(name);
  const std::string short_id = image.id.shortHex();
  std::optional<Reference> reference;
  std::string_view hex = name.starts_with("sha256:") ? name.substr(7) : name;
  if (!image.id.hex().starts_with(hex)) reference = Reference::parse(name);

  std::vector<Reference> gone = image.tags;
  gone.insert(gone.end(), image.digests.begin(), image.digests.end());
  const size_t all = gone.size();
  if (reference) gone = namesToRemove(image, *reference);
  const bool last = gone.size() == all;
  if (!reference && !force && !hasOneName(image)) {
    throw conflict("delete " + short_id, "image is referenced in multiple repositories");
  }
  if (last && !force && in_use && in_use(image.id)) {
    throw reference ? conflict("remove repository reference \"" + reference->familiar() + "\"",
                               "a container is using its referenced image " + short_id)
                    : conflict("delete " + short_id, "image is being used by a container");
  }

  std::vector<RemovedItem> removed;
  {
    const auto lock = state_->database.lock();
    Database::Transaction transaction(state_->database);
    for (const Reference& each : gone) {
      state_->database
          .prepare(each.digest.empty() ? "DELETE FROM tags WHERE name=? AND image=?"
                                       : "DELETE FROM digests WHERE name=? AND image=?")
          .bind(each.text())
          .bind(image.id.text())
          .run();
      removed.push_back({RemoveOutcome::kUntagged, each.familiar()});
    }
    if (last) {
      // Unless it was given another name since it was looked at.
      Statement row = state_->database.prepare(
          "DELETE FROM images WHERE id=? AND NOT EXISTS(SELECT 1 FROM tags WHERE image=id) "
          "AND NOT EXISTS(SELECT 1 FROM digests WHERE image=id) RETURNING id");
      row.bind(image.id.text());
      if (row.step()) removed.push_back({RemoveOutcome::kDeleted, image.id.text()});
      row.run();
    }
    transaction.commit();
  }
  if (last) collectGarbage();
  return removed;
}

uint64_t ImageStore::layerBytes(const Digest& diff_id) const {
  return state_->layerBytes(diff_id);
}

ImageStore::Usage ImageStore::usage() const {
  std::map<Digest, std::vector<Digest>> layers_of;
  std::map<Digest, size_t> users;
  {
    const auto lock = state_->database.lock();
    Statement row = state_->database.prepare("SELECT DISTINCT image, diff_id FROM image_layers");
    while (row.step()) {
      const Digest layer = Digest::parse(row.text(1));
      layers_of[Digest::parse(row.text(0))].push_back(layer);
      ++users[layer];
    }
  }
  Usage result;
  std::map<Digest, uint64_t> bytes;
  for (const auto& [layer, count] : users) {
    try {
      bytes[layer] = state_->layerBytes(layer);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;  // removed meanwhile
    }
    result.layers += bytes[layer];
  }
  for (const auto& [image, layers] : layers_of) {
    uint64_t& shared = result.shared[image];
    for (const Digest& layer : layers) shared += users[layer] > 1 ? bytes[layer] : 0;
  }
  return result;
}

std::shared_ptr<void> ImageStore::pinLayers(const std::vector<Digest>& diff_ids) {
  return state_->layers.pins().pin(diff_ids);
}

}  // namespace hull::image
