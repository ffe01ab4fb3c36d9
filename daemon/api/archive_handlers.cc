// Files of a container, through its guest: cp, export, changes, commit.
#include <algorithm>
#include <ctime>

#include "base/base64.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/engine/image_change.h"
#include "daemon/engine/json_fields.h"
#include "image/layer/tar_reader.h"

namespace hull::engine::api {

namespace {

using ContainerPtr = std::shared_ptr<Container>;
using Kind = guest::OpenStream::Kind;

ChunkSource openSource(Vm& vm, const Container& container, Kind kind,
                       const std::string& path = {}) {
  guest::OpenStream open;
  open.kind = kind;
  open.path = path;
  return ChunkSource(vm.openStream(container.id(), open));
}

std::string pathOf(Exchange& exchange) {
  const std::string path = exchange.request().query.get("path");
  if (path.empty()) throw Error(ErrorKind::kInvalidArgument, "bad parameter: \"path\" is empty");
  return path.starts_with('/') ? path : "/" + path;
}

// Passes on what was read already, then the rest.
class PrefixedSource final : public Source {
 public:
  PrefixedSource(std::string prefix, Source& rest) : prefix_(std::move(prefix)), rest_(rest) {}
  size_t read(std::span<std::byte> into) override {
    if (at_ == prefix_.size()) return rest_.read(into);
    const size_t size = std::min(into.size(), prefix_.size() - at_);
    std::copy_n(asBytes(prefix_).begin() + static_cast<std::ptrdiff_t>(at_), size, into.begin());
    at_ += size;
    return size;
  }

 private:
  std::string prefix_;
  size_t at_ = 0;
  Source& rest_;
};

// Keeps what passes.
class RecordingSource final : public Source {
 public:
  explicit RecordingSource(Source& inner) : inner_(inner) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = inner_.read(into);
    recorded.append(reinterpret_cast<const char*>(into.data()), got);
    return got;
  }
  std::string recorded;

 private:
  Source& inner_;
};

// Go's os.FileMode bits (io/fs.FileMode).
uint32_t goMode(const image::TarEntry& entry) {
  uint32_t mode = entry.mode & 0777;
  if (entry.mode & 04000) mode |= 1U << 23;
  if (entry.mode & 02000) mode |= 1U << 22;
  if (entry.mode & 01000) mode |= 1U << 20;
  switch (entry.type) {
    case image::EntryType::kDirectory:
      return mode | 1U << 31;
    case image::EntryType::kSymlink:
      return mode | 1U << 27;
    case image::EntryType::kFifo:
      return mode | 1U << 25;
    case image::EntryType::kCharDevice:
      return mode | 1U << 26 | 1U << 21;
    case image::EntryType::kBlockDevice:
      return mode | 1U << 26;
    default:
      return mode;
  }
}

std::string baseName(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || path.size() == 1 ? path : path.substr(slash + 1);
}

// X-Docker-Container-Path-Stat.
std::string pathStat(const image::TarEntry& entry, const std::string& path) {
  return base64Encode(
      fields::dump({{"name", baseName(path)},
                    {"size", entry.type == image::EntryType::kFile ? entry.size : 0},
                    {"mode", goMode(entry)},
                    {"mtime", timeText(std::max<int64_t>(entry.mtime_seconds, 1) * 1'000'000'000 +
                                       entry.mtime_nanoseconds)},
                    {"linkTarget", entry.link}}));
}

// The archive's first member, and the stream with it put back.
struct Archive {
  std::string stat;
  std::string prefix;
};
Archive readFirst(Source& source, const std::string& path) {
  RecordingSource recording(source);
  image::TarReader reader(recording);
  const auto first = reader.next();
  if (!first) {
    throw Error(ErrorKind::kNotFound, "Could not find the file " + path + " in container");
  }
  return {pathStat(*first, path), std::move(recording.recorded)};
}

[[noreturn]] void notFound(const Container& container, const std::string& path) {
  throw Error(ErrorKind::kNotFound,
              "Could not find the file " + path + " in container " + container.id());
}

void readArchive(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  const std::string path = pathOf(exchange);
  engine.containers().withGuest(container, [&](Vm& vm) {
    try {
      ChunkSource source = openSource(vm, *container, Kind::kReadArchive, path);
      Archive archive = readFirst(source, path);
      const Headers headers{{"X-Docker-Container-Path-Stat", archive.stat}};
      if (exchange.request().method == "HEAD") return exchange.empty(200, headers);
      PrefixedSource whole(std::move(archive.prefix), source);
      copy(whole, exchange.stream(200, "application/x-tar", headers));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound && !exchange.answered()) notFound(*container, path);
      throw;
    }
  });
}

void writeArchive(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  const std::string path = pathOf(exchange);
  engine.containers().withGuest(container, [&](Vm& vm) {
    guest::OpenStream open;
    open.kind = Kind::kWriteArchive;
    open.path = path;
    try {
      ChunkSink sink(vm.openStream(container->id(), open));
      copy(exchange.body(), sink);
      sink.finish();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) notFound(*container, path);
      throw;
    }
  });
  exchange.empty(200);
}

void exportContainer(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  engine.containers().withGuest(container, [&](Vm& vm) {
    ChunkSource source = openSource(vm, *container, Kind::kExport);
    copy(source, exchange.stream(200, "application/octet-stream", {}));
  });
  engine.containers().publish(*container, "export");
}

// --- changes ---

constexpr int kModified = 0, kAdded = 1, kDeleted = 2;
constexpr size_t kMaxChanges = 1'000'000;

std::pair<std::string, int> changeOf(const image::TarEntry& entry, const image::Tree& image) {
  std::string path = entry.path;
  while (path.starts_with("./")) path.erase(0, 2);
  while (path.ends_with('/')) path.pop_back();
  const size_t name = path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1;
  if (path.compare(name, 4, ".wh.") == 0) {
    path.erase(name, 4);
    return {"/" + path, kDeleted};
  }
  return {"/" + path, image.find(path) == image::kNoInode ? kAdded : kModified};
}

void changes(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  std::vector<image::Digest> layers;
  for (const auto& text : container->record().diff_ids) {
    layers.push_back(image::Digest::parse(text));
  }
  const image::Tree image = engine.images().treeOf(layers);
  Json list = Json::array();
  engine.containers().withGuest(container, [&](Vm& vm) {
    ChunkSource source = openSource(vm, *container, Kind::kReadChanges);
    image::TarReader reader(source);
    while (const auto entry = reader.next()) {
      const auto [path, kind] = changeOf(*entry, image);
      if (path == "/" || path.ends_with("/.wh..opq")) continue;
      list.push_back({{"Path", path}, {"Kind", kind}});
      if (list.size() > kMaxChanges) {
        throw Error(ErrorKind::kTooLarge, "list changes: more than a million");
      }
    }
  });
  exchange.json(200, list.empty() ? "null\n" : dump(list));
}

// --- commit ---

image::ImageConfig committedConfig(Exchange& exchange, Engine& engine, const Container& container) {
  const Query& query = exchange.request().query;
  image::ImageConfig config = engine.images().get(container.record().image_id).config;
  const Json own = Json::parse(container.record().documents.config);
  config.config.env = fields::texts(own, "Env");
  config.config.user = fields::text(own, "User");
  config.config.working_dir = fields::text(own, "WorkingDir");
  config.config.labels = fields::textMap(own, "Labels");
  const auto optionalTexts = [&](const char* key) -> std::optional<std::vector<std::string>> {
    if (!fields::find(own, key)) return std::nullopt;
    return fields::texts(own, key);
  };
  config.config.cmd = optionalTexts("Cmd");
  config.config.entrypoint = optionalTexts("Entrypoint");
  config.config.exposed_ports = fields::keys(own, "ExposedPorts");
  for (const std::string& change : query.all("changes")) applyChange(change, config.config);
  config.created = timeText(nowNs());
  config.author = query.get("author");
  return config;
}

void commit(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const ContainerPtr container = engine.containers().get(query.get("container"));
  std::vector<image::Reference> names;
  if (!query.get("repo").empty()) {
    const std::string tag = query.get("tag");
    names.push_back(image::Reference::parse(query.get("repo") + (tag.empty() ? "" : ":" + tag)));
  }
  image::ImageConfig config = committedConfig(exchange, engine, *container);
  const image::Image base = engine.images().get(container->record().image_id);
  std::vector<image::IngestedLayer> layers;
  for (size_t i = 0; i < base.layer_blobs.size(); ++i) {
    image::IngestedLayer layer;
    layer.diff_id = base.config.diff_ids.at(i);
    layer.blob = base.layer_blobs[i].digest;
    layer.media_type = base.layer_blobs[i].media_type;
    layer.blob_bytes = base.layer_blobs[i].size;
    layers.push_back(std::move(layer));
  }
  engine.containers().withGuest(container, [&](Vm& vm) {
    ChunkSource source = openSource(vm, *container, Kind::kReadChanges);
    layers.push_back(engine.images().layers().ingest(source, image::KeepBlob::kCompress));
  });
  config.diff_ids.push_back(layers.back().diff_id);
  config.history.push_back({config.created, "", config.author, query.get("comment"), false});
  const auto image = engine.images().create(config, layers, names);
  engine.containers().publish(*container, "commit", {{"comment", query.get("comment")}});
  exchange.json(201, dump({{"Id", image.id.text()}}));
}

}  // namespace

void addArchiveRoutes(Router& router, Engine& engine) {
  router.add("GET", "/containers/{name}/archive", [&](Exchange& e) { readArchive(e, engine); });
  router.add("PUT", "/containers/{name}/archive", [&](Exchange& e) { writeArchive(e, engine); });
  router.add("GET", "/containers/{name}/export", [&](Exchange& e) { exportContainer(e, engine); });
  router.add("GET", "/containers/{name}/changes", [&](Exchange& e) { changes(e, engine); });
  router.add("POST", "/commit", [&](Exchange& e) { commit(e, engine); });
}

}  // namespace hull::engine::api
