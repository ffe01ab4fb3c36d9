#include "image/build/history_cache.h"

#include <algorithm>
#include <map>

#include "base/bytes.h"
#include "base/error.h"
#include "image/build/copy.h"

namespace hull::build {

namespace {

using image::Entry;
using image::EntryType;

bool strip(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

image::IngestedLayer layerOf(const image::Image& image, size_t number) {
  const image::Descriptor& blob = image.layer_blobs.at(number);
  image::IngestedLayer layer;
  layer.diff_id = image.config.diff_ids.at(number);
  layer.blob = blob.digest;
  layer.media_type = blob.media_type;
  layer.blob_bytes = blob.size;
  return layer;
}

// Everything but time and content.
std::string attributesOf(EntryType type, const Entry& entry) {
  ByteWriter out;
  out.u8(static_cast<uint8_t>(type));
  out.u16(entry.mode);
  out.u32(entry.uid);
  out.u32(entry.gid);
  out.u64(type == EntryType::kFile ? entry.size : 0);
  out.string(entry.link);
  out.u32(entry.device_major);
  out.u32(entry.device_minor);
  for (const auto& [name, value] : entry.xattrs) {
    out.string(name);
    out.string(value);
  }
  return out.take();
}

// What a layer does to each path, but for folders that are there already, just so.
std::map<std::string, std::string> effects(const RootFs& below, const image::LayerIndex& index) {
  std::map<std::string, std::string> effects;
  for (const Entry& entry : index.entries) {
    std::string effect = attributesOf(entry.type, entry);
    if (entry.type == EntryType::kDirectory) {
      const image::InodeNumber there = below.tree().find(entry.path);
      if (there != image::kNoInode &&
          attributesOf(below.tree().at(there).type, entryOf(below.tree().at(there), entry.path)) ==
              effect)
        continue;
    }
    effects[entry.path] = std::move(effect);
  }
  return effects;
}

bool sameContents(image::LayerStore& layers, const image::LayerIndex& index,
                  const image::Digest& one, const image::Digest& other) {
  RootFs first(layers, {one}), second(layers, {other});
  return std::all_of(index.entries.begin(), index.entries.end(), [&](const Entry& entry) {
    if (entry.type != EntryType::kFile) return true;
    const image::InodeNumber a = first.tree().find(entry.path), b = second.tree().find(entry.path);
    return a != image::kNoInode && b != image::kNoInode &&
           first.contentDigest(first.tree().at(a)) == second.contentDigest(second.tree().at(b));
  });
}

}  // namespace

std::string plainHistory(std::string_view created_by) {
  std::string_view text = created_by;
  constexpr std::string_view kBuildKit = " # buildkit";
  if (text.ends_with(kBuildKit)) text.remove_suffix(kBuildKit.size());
  if (strip(text, "/bin/sh -c #(nop) ")) {
    while (strip(text, " ")) {
    }
    while (text.ends_with(' ')) text.remove_suffix(1);
  } else {
    strip(text, "RUN ");
  }
  return std::string(text);
}

bool sameOn(const RootFs& below, image::LayerStore& layers, const image::Digest& one,
            const image::Digest& other) {
  if (one == other) return true;
  try {
    const image::LayerIndex first = layers.index(one);
    return effects(below, first) == effects(below, layers.index(other)) &&
           sameContents(layers, first, one, other);
  } catch (const Error& error) {
    // A layer that means something only on top of another: no step on the host makes it.
    if (error.kind() == ErrorKind::kCorrupt || error.kind() == ErrorKind::kTooLarge) return false;
    throw;
  }
}

std::optional<HistoryFollower> HistoryFollower::begin(
    const image::Image& image, const std::vector<image::HistoryEntry>& history,
    const std::vector<image::IngestedLayer>& layers) {
  const auto& own = image.config.history;
  if (own.size() < history.size() || image.config.diff_ids.size() < layers.size()) return {};
  for (size_t i = 0; i < layers.size(); ++i) {
    if (image.config.diff_ids[i] != layers[i].diff_id) return {};
  }
  HistoryFollower follower;
  follower.environment_ = image.config.config.env;
  size_t layer = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    if (i < history.size()) {
      if (own[i].created_by != history[i].created_by ||
          own[i].empty_layer != history[i].empty_layer)
        return {};
    }
    std::optional<image::IngestedLayer> made;
    if (!own[i].empty_layer) {
      if (layer == image.config.diff_ids.size()) return {};
      made = layerOf(image, layer++);
    }
    if (i + 1 == history.size() && layer != layers.size()) return {};
    if (i >= history.size())
      follower.steps_.push_back({plainHistory(own[i].created_by), own[i].created, std::move(made)});
  }
  if (layer != image.config.diff_ids.size() || (history.empty() && !layers.empty())) return {};
  return follower;
}

std::optional<CachedStep> HistoryFollower::layer() const {
  if (next_ == steps_.size() || !steps_[next_].layer) return std::nullopt;
  return CachedStep{steps_[next_].created, steps_[next_].layer};
}

bool HistoryFollower::has(const std::vector<std::string>& variables) const {
  return std::all_of(variables.begin(), variables.end(), [&](const std::string& variable) {
    return std::find(environment_.begin(), environment_.end(), variable) != environment_.end();
  });
}

bool HistoryFollower::isNext(std::string_view created_by) const {
  return next_ < steps_.size() && steps_[next_].created_by == plainHistory(created_by);
}

bool HistoryFollower::advance(std::string_view created_by,
                              const std::optional<image::Digest>& layer, bool by_text) {
  if (next_ == steps_.size()) return false;
  const Step& step = steps_[next_];
  const bool same = layer ? step.layer && step.layer->diff_id == *layer
                          : !step.layer && by_text && isNext(created_by);
  ++next_;
  return same;
}

}  // namespace hull::build
