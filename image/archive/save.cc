// saveArchive and importRootfs.
#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/fd.h"
#include "image/archive/archive.h"

namespace hull::image {

namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* kContainerdName = "io.containerd.image.name";
constexpr const char* kRefName = "org.opencontainers.image.ref.name";

struct Saved {
  Image image;
  std::set<Reference> tags;  // those asked for
};

bool isBareName(std::string_view name, const Reference& parsed) {
  return parsed.digest.empty() && name.find(':', name.rfind('/') + 1) == std::string_view::npos;
}

// By id: the image without names; by name: with that; by a name without tag: with all its tags.
std::vector<Saved> select(ImageStore& store, const std::vector<std::string>& names) {
  std::map<Digest, Saved> found;
  const auto add = [&](Image image) -> Saved& {
    const Digest id = image.id;
    return found.try_emplace(id, Saved{std::move(image), {}}).first->second;
  };
  for (const std::string& name : names) {
    std::optional<Reference> reference;
    try {
      reference = Reference::parse(name);
    } catch (const Error&) {
      // an id, or wrong: get() decides
    }
    bool any = false;
    if (reference && isBareName(name, *reference)) {
      for (const Image& image : store.list()) {
        for (const Reference& tag : image.tags) {
          if (tag.name() != reference->name()) continue;
          add(image).tags.insert(tag);
          any = true;
        }
      }
    }
    if (any) continue;
    Saved& saved = add(store.get(name));
    const auto& tags = saved.image.tags;
    if (reference && std::find(tags.begin(), tags.end(), *reference) != tags.end()) {
      saved.tags.insert(*reference);
    }
  }
  std::vector<Saved> result;
  for (auto& [id, saved] : found) result.push_back(std::move(saved));
  return result;
}

std::string blobPath(const Digest& digest) {
  return "blobs/" + std::string(digest.algorithmName()) + "/" + std::string(digest.hex());
}

class ArchiveWriter {
 public:
  ArchiveWriter(ImageStore& store, Sink& out) : store_(store), tar_(out) {}

  void directory(const std::string& path) {
    Entry entry;
    entry.path = path;
    entry.type = EntryType::kDirectory;
    entry.mode = 0755;
    tar_.add(entry, -1);
  }

  void blob(const Digest& digest) {
    if (!written_.insert(digest).second) return;
    const Fd fd = store_.blobs().open(digest);
    file(blobPath(digest), fd.get(), store_.blobs().size(digest));
  }

  void text(const std::string& path, const std::string& content) {
    const Fd fd = makeMemfd("archive");
    writeFull(fd.get(), content);
    file(path, fd.get(), content.size());
  }

  void finish() { tar_.finish(); }

 private:
  void file(const std::string& path, int fd, uint64_t size) {
    Entry entry;
    entry.path = path;
    entry.mode = 0644;
    entry.size = size;
    tar_.add(entry, fd);
  }

  ImageStore& store_;
  LayerTarWriter tar_;
  std::set<Digest> written_;
};

std::string indexJson(const std::vector<Saved>& images) {
  Index index;
  index.media_type = media_type::kOciIndex;
  for (const Saved& saved : images) {
    Descriptor entry{saved.image.manifest_type,
                     saved.image.manifest,
                     saved.image.manifest_bytes,
                     saved.image.config.platform,
                     {}};
    if (saved.tags.empty()) index.manifests.push_back(entry);
    for (const Reference& tag : saved.tags) {
      entry.annotations = {{kContainerdName, tag.text()}, {kRefName, tag.tag}};
      index.manifests.push_back(entry);
    }
  }
  return toJson(index);
}

std::string dockerManifestJson(const std::vector<Saved>& images) {
  OrderedJson list = OrderedJson::array();
  for (const Saved& saved : images) {
    OrderedJson item;
    item["Config"] = blobPath(saved.image.id);
    item["RepoTags"] = saved.tags.empty() ? OrderedJson() : OrderedJson::array();
    for (const Reference& tag : saved.tags) item["RepoTags"].push_back(tag.familiar());
    item["Layers"] = OrderedJson::array();
    for (const Descriptor& layer : saved.image.layer_blobs) {
      item["Layers"].push_back(blobPath(layer.digest));
    }
    list.push_back(std::move(item));
  }
  return list.dump();
}

std::vector<Digest> blobsOf(const Saved& saved) {
  std::vector<Digest> result{saved.image.id, saved.image.manifest};
  for (const Descriptor& layer : saved.image.layer_blobs) result.push_back(layer.digest);
  return result;
}

std::string nowRfc3339() {
  const time_t now = time(nullptr);
  struct tm parts;
  gmtime_r(&now, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

void saveArchive(ImageStore& store, const std::vector<std::string>& names, Sink& out) {
  if (names.empty()) throw Error(ErrorKind::kInvalidArgument, "save: no image named");
  const std::vector<Saved> images = select(store, names);
  std::set<Digest> blobs;
  for (const Saved& saved : images) {
    for (const Digest& digest : blobsOf(saved)) blobs.insert(digest);
  }
  // Whatever is removed meanwhile, what was begun can be finished.
  const auto pin = store.pinLayers({blobs.begin(), blobs.end()});
  const std::string index = indexJson(images);

  ArchiveWriter writer(store, out);
  writer.directory("blobs");
  for (const char* algorithm : {"sha256", "sha512"}) {
    const auto of = [&](const Digest& digest) { return digest.algorithmName() == algorithm; };
    if (std::none_of(blobs.begin(), blobs.end(), of)) continue;
    writer.directory("blobs/" + std::string(algorithm));
    for (const Digest& digest : blobs) {
      if (of(digest)) writer.blob(digest);
    }
  }
  writer.text("index.json", index);
  writer.text("manifest.json", dockerManifestJson(images));
  writer.text("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  writer.finish();
}

Image importRootfs(ImageStore& store, Source& tar, const ImportRequest& request) {
  return inContext("import", [&] {
    const IngestedLayer layer = store.layers().ingest(tar, KeepBlob::kCompress);
    ImageConfig image;
    image.created = nowRfc3339();
    image.config = request.config;
    image.platform = request.platform;
    image.history.push_back({image.created, "", "", request.message, false});
    return store.create(image, {layer}, request.names);
  });
}

}  // namespace hull::image
