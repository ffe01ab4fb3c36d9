#include "registry/server/layout.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"

namespace hull::registry {

using image::Digest;

namespace {

constexpr const char* kRefName = "org.opencontainers.image.ref.name";

// Entries one after another: a registry with many tags has an index larger than it should hold in
// memory.
class IndexWriter {
 public:
  explicit IndexWriter(int fd) : out_(fd) {
    buffer_ =
        R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[)";
  }

  void add(const StoredManifest& manifest, uint64_t size, const std::string& name) {
    nlohmann::ordered_json entry = {
        {"mediaType", manifest.media_type}, {"digest", manifest.digest.text()}, {"size", size}};
    if (!name.empty()) entry["annotations"] = {{kRefName, name}};
    buffer_ += (first_ ? "\n" : ",\n") +
               entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    first_ = false;
    if (buffer_.size() < kStreamChunkBytes) return;
    out_.write(std::string_view(buffer_));
    buffer_.clear();
  }

  void finish() {
    buffer_ += "]}\n";
    static_cast<Sink&>(out_).write(std::string_view(buffer_));
  }

 private:
  FdSink out_;
  std::string buffer_;
  bool first_ = true;
};

void addRepository(const RepositoryStore& store, const std::string& repository,
                   IndexWriter& index) {
  std::set<Digest> tagged;
  const auto size = [&](const StoredManifest& manifest) -> std::optional<uint64_t> {
    try {
      return store.blobs().size(manifest.digest);
    } catch (const Error&) {  // deleted meanwhile: the next index is without it
      return std::nullopt;
    }
  };
  for (const std::string& tag : store.tags(repository)) {
    const auto found = store.findTag(repository, tag);
    const auto bytes = found ? size(*found) : std::nullopt;
    if (!bytes) continue;
    tagged.insert(found->digest);
    index.add(*found, *bytes, repository + ":" + tag);
  }
  for (const Digest& digest : store.manifests(repository)) {
    if (tagged.contains(digest)) continue;
    const auto found = store.findManifest(repository, digest);
    const auto bytes = found ? size(*found) : std::nullopt;
    if (bytes) index.add(*found, *bytes, {});
  }
}

}  // namespace

bool LayoutIndex::update() {
  const uint64_t generation = store_.generation();
  if (written_ == generation) return false;
  inContext("write the OCI layout of " + store_.root(), [&] { write(); });
  written_ = generation;
  return true;
}

void LayoutIndex::write() const {
  PendingFile file(store_.root());
  IndexWriter index(file.fd());
  for (const std::string& repository : store_.list()) addRepository(store_, repository, index);
  index.finish();
  file.publish(store_.root() + "/index.json");
  const std::string marker = store_.root() + "/oci-layout";
  if (!fileExists(marker)) writeFileAtomic(marker, "{\"imageLayoutVersion\":\"1.0.0\"}\n");
}

}  // namespace hull::registry
