// loadArchive: OCI layouts (image-spec image-layout.md) and docker-archive (manifest.json).
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "image/archive/archive.h"
#include "image/archive/spool.h"
#include "image/layer/path.h"
#include "image/store/codec.h"
#include "image/types/json.h"

namespace hull::image {

namespace {

constexpr const char* kOciLayout = "oci-layout";
constexpr const char* kOciIndex = "index.json";
constexpr const char* kDockerManifest = "manifest.json";
constexpr const char* kContainerdName = "io.containerd.image.name";
constexpr const char* kRefName = "org.opencontainers.image.ref.name";
constexpr size_t kMaxImagesPerArchive = 1024;
constexpr int kMaxNestedIndexes = 4;

std::string blobPath(const Digest& digest) {
  return "blobs/" + std::string(digest.algorithmName()) + "/" + std::string(digest.hex());
}

class SpoolBlobs final : public BlobSource {
 public:
  explicit SpoolBlobs(const ArchiveSpool& spool) : spool_(spool) {}
  // Configurations of docker-archives, under their digest.
  std::map<Digest, std::string> extra;

  std::unique_ptr<Source> open(const Descriptor& blob) override {
    const auto it = extra.find(blob.digest);
    if (it != extra.end()) return std::make_unique<StringSource>(it->second);
    return spool_.open(blobPath(blob.digest));
  }

 private:
  const ArchiveSpool& spool_;
};

// OCI layouts.

std::string readDocument(const ArchiveSpool& spool, const Digest& digest) {
  std::string text = spool.read(blobPath(digest), kMaxManifestBytes);
  Hasher hasher(digest.algorithm());
  hasher.update(text);
  const std::string got = hasher.finishHex();
  if (got != digest.hex()) {
    throw Error(ErrorKind::kCorrupt,
                "verify manifest " + digest.text() + ": digest mismatch (got " + got + ")");
  }
  return text;
}

// The manifest that an index entry means on this host: itself, or picked from a nested index.
std::string resolveManifest(const ArchiveSpool& spool, Descriptor entry) {
  for (int depth = 0; depth < kMaxNestedIndexes; ++depth) {
    std::string text = readDocument(spool, entry.digest);
    const auto document = parseManifest(text, entry.media_type);
    if (std::holds_alternative<Manifest>(document)) return text;
    entry = std::get<Index>(document).select(Platform{});
  }
  throw Error(ErrorKind::kCorrupt, "indexes are nested too deeply");
}

// A name in an annotation may be whole, or just a tag, which names nothing by itself.
void addName(std::vector<Reference>& names, const std::string& text) {
  if (text.find_first_of(":/") == std::string::npos) return;
  Reference name = Reference::parse(text);
  if (name.digest.empty() && std::find(names.begin(), names.end(), name) == names.end()) {
    names.push_back(std::move(name));
  }
}

struct DockerImage {
  std::string config;
  std::vector<std::string> tags;
  std::vector<std::string> layers;
};

std::vector<DockerImage> parseDockerManifest(const std::string& text) {
  const json::Json document = json::parseDocument(text, kMaxManifestBytes, kDockerManifest);
  if (!document.is_array() || document.size() > kMaxImagesPerArchive) {
    throw Error(ErrorKind::kCorrupt, "manifest.json is no list of images");
  }
  std::vector<DockerImage> result;
  for (const json::Json& item : document) {
    DockerImage image;
    image.config = json::text(item, "Config");
    if (const json::Json* tags = json::find(item, "RepoTags")) {
      image.tags = json::texts(*tags, "RepoTags");
    }
    if (const json::Json* layers = json::find(item, "Layers")) {
      image.layers = json::texts(*layers, "Layers");
    }
    if (image.layers.size() > kMaxLayers) {
      throw Error(ErrorKind::kTooLarge, "more than " + std::to_string(kMaxLayers) + " layers");
    }
    result.push_back(std::move(image));
  }
  return result;
}

// The name that an entry of an index gives its image; empty without one.
std::string nameOf(const Descriptor& entry) {
  for (const char* key : {kContainerdName, kRefName}) {
    const auto it = entry.annotations.find(key);
    if (it != entry.annotations.end()) return it->second;
  }
  return {};
}

// Of an image's several platforms this host's; an image that is there for others only, as it is.
std::vector<Descriptor> entriesToLoad(const Index& index) {
  const auto fits = [host = Platform{}](const Descriptor& entry) {
    return !entry.platform ||
           (entry.platform->os == host.os && entry.platform->architecture == host.architecture);
  };
  const auto hasFitting = [&](const std::string& name) {
    return std::any_of(index.manifests.begin(), index.manifests.end(),
                       [&](const Descriptor& each) { return fits(each) && nameOf(each) == name; });
  };
  std::vector<Descriptor> entries = index.manifests;
  // Attestations stand beside the images, for a platform of their own.
  std::erase_if(entries, [](const Descriptor& entry) {
    return entry.platform && entry.platform->os == "unknown";
  });
  std::erase_if(entries,
                [&](const Descriptor& entry) { return !fits(entry) && hasFitting(nameOf(entry)); });
  return entries;
}

std::vector<ImageStore::Addition> additionsOfLayout(const ArchiveSpool& spool) {
  const json::Json layout = json::parseDocument(spool.read(kOciLayout, 4096), 4096, kOciLayout);
  if (const std::string version = json::text(layout, "imageLayoutVersion");
      !version.starts_with("1.")) {
    throw Error(ErrorKind::kNotSupported, "unknown OCI layout version");
  }
  const auto document = parseManifest(spool.read(kOciIndex, kMaxManifestBytes));
  if (!std::holds_alternative<Index>(document)) {
    throw Error(ErrorKind::kCorrupt, "index.json is no index");
  }
  std::map<std::string, std::vector<std::string>> docker_tags;  // by config path
  if (spool.has(kDockerManifest)) {
    for (DockerImage& image : parseDockerManifest(spool.read(kDockerManifest, kMaxManifestBytes))) {
      docker_tags[image.config] = std::move(image.tags);
    }
  }
  std::vector<ImageStore::Addition> result;
  for (const Descriptor& entry : entriesToLoad(std::get<Index>(document))) {
    ImageStore::Addition addition;
    addition.manifest_json = resolveManifest(spool, entry);
    for (const char* key : {kContainerdName, kRefName}) {
      const auto it = entry.annotations.find(key);
      if (it != entry.annotations.end()) addName(addition.names, it->second);
    }
    const auto manifest = parseManifest(addition.manifest_json);
    for (const std::string& tag :
         docker_tags[blobPath(std::get<Manifest>(manifest).config.digest)]) {
      addName(addition.names, tag);
    }
    // An image of several names has several entries.
    const auto same = std::find_if(result.begin(), result.end(), [&](const auto& earlier) {
      return earlier.manifest_json == addition.manifest_json;
    });
    if (same == result.end()) {
      result.push_back(std::move(addition));
    } else {
      for (const Reference& name : addition.names) addName(same->names, name.text());
    }
  }
  if (result.empty()) throw Error(ErrorKind::kCorrupt, "the archive holds no image");
  return result;
}

// docker-archive: no manifest of the registry's kind in it, so one is made. Plain layers are
// compressed as a push would do.

class DockerArchive {
 public:
  DockerArchive(ImageStore& store, const ArchiveSpool& spool, SpoolBlobs& blobs)
      : store_(store), spool_(spool), blobs_(blobs) {}

  std::vector<ImageStore::Addition> additions(const ProgressFunction& progress) {
    std::vector<ImageStore::Addition> result;
    for (const DockerImage& image :
         parseDockerManifest(spool_.read(kDockerManifest, kMaxManifestBytes))) {
      result.push_back(addition(image, progress));
    }
    if (result.empty()) throw Error(ErrorKind::kCorrupt, "the archive holds no image");
    return result;
  }

 private:
  ImageStore::Addition addition(const DockerImage& image, const ProgressFunction& progress) {
    const std::string text = spool_.read(image.config, kMaxConfigBytes);
    const ImageConfig config = parseImageConfig(text);
    checkLayerCount(config, image);
    Manifest manifest;
    manifest.media_type = media_type::kOciManifest;
    const Digest id = Digest::of(text);
    blobs_.extra[id] = text;
    manifest.config = {media_type::kOciConfig, id, text.size(), {}, {}};
    for (size_t i = 0; i < image.layers.size(); ++i) {
      const IngestedLayer& layer = ingest(image.layers[i], config.diff_ids[i], progress);
      manifest.layers.push_back({layer.media_type, layer.blob, layer.blob_bytes, {}, {}});
    }
    ImageStore::Addition addition{toJson(manifest), {}};
    for (const std::string& tag : image.tags) addition.names.push_back(Reference::parse(tag));
    return addition;
  }

  static void checkLayerCount(const ImageConfig& config, const DockerImage& image) {
    if (config.diff_ids.size() != image.layers.size()) {
      throw Error(ErrorKind::kCorrupt,
                  "manifest.json names " + std::to_string(image.layers.size()) +
                      " layers, the configuration " + std::to_string(config.diff_ids.size()));
    }
  }

  const IngestedLayer& ingest(const std::string& path, const Digest& diff_id,
                              const ProgressFunction& progress) {
    const auto known = layers_.find(diff_id);
    if (known != layers_.end()) return known->second;
    const uint64_t size = spool_.size(path);
    if (progress) progress({diff_id, "Loading layer", 0, size});
    const KeepBlob keep = isPlain(path) ? KeepBlob::kCompress : KeepBlob::kAsIs;
    const auto stream = spool_.open(path);
    const IngestedLayer layer = inContext("layer " + quotePath(path), [&] {
      return store_.layers().ingest(*stream, keep, {}, diff_id);
    });
    store_.recordLayer(layer);
    if (progress) progress({diff_id, "Loading layer", size, size});
    return layers_.emplace(diff_id, layer).first->second;
  }

  bool isPlain(const std::string& path) const {
    const auto stream = spool_.open(path);
    std::byte head[kCompressionMagicBytes];
    const size_t size = stream->read(head);
    return detectCompression(std::span(head).first(size)) == Compression::kNone;
  }

  ImageStore& store_;
  const ArchiveSpool& spool_;
  SpoolBlobs& blobs_;
  std::map<Digest, IngestedLayer> layers_;  // keeps them pinned
};

}  // namespace

std::vector<Image> loadArchive(ImageStore& store, Source& archive,
                               const ProgressFunction& progress) {
  return inContext("load images", [&] {
    const ArchiveSpool spool(archive, store.blobs().root());
    SpoolBlobs blobs(spool);
    DockerArchive docker(store, spool, blobs);
    std::vector<ImageStore::Addition> additions;
    if (spool.has(kOciLayout) && spool.has(kOciIndex)) {
      additions = additionsOfLayout(spool);
    } else if (spool.has(kDockerManifest)) {
      additions = docker.additions(progress);
    } else if (spool.has("repositories")) {
      throw Error(ErrorKind::kNotSupported,
                  "this archive predates Docker 1.10 (save it again with a current docker)");
    } else {
      throw Error(ErrorKind::kCorrupt,
                  "this is no image archive: neither manifest.json nor an OCI layout is in it "
                  "(for a root file system use import)");
    }
    return store.addAll(additions, blobs, progress);
  });
}

}  // namespace hull::image
