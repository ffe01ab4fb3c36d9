#include "image/store/image_state.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "image/store/abandoned.h"

namespace hull::image {

namespace {

constexpr const char* kSchema1 = R"(
CREATE TABLE images(
  id TEXT PRIMARY KEY,          -- digest of the config
  manifest TEXT NOT NULL,
  size INTEGER NOT NULL,        -- unpacked bytes
  added INTEGER NOT NULL        -- nanoseconds since 1970
) STRICT;
CREATE TABLE image_layers(
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  blob TEXT NOT NULL,
  diff_id TEXT NOT NULL,
  PRIMARY KEY(image, position)
) STRICT;
CREATE TABLE tags(
  name TEXT PRIMARY KEY,        -- Reference::text()
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) STRICT;
CREATE INDEX tags_image ON tags(image);
CREATE TABLE digests(
  name TEXT PRIMARY KEY,        -- registry/repository@digest
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) STRICT;
CREATE INDEX digests_image ON digests(image);
CREATE TABLE unpacked(          -- verified: this blob holds this layer
  blob TEXT PRIMARY KEY,
  diff_id TEXT NOT NULL
) STRICT;
)";
constexpr const char* kMigrations[] = {kSchema1};

constexpr size_t kMinShortIdDigits = 4;
constexpr size_t kIdHexDigits = 64;
// Changes whenever stitch() gives other bytes for the same layers: cached disks are made anew.
constexpr const char* kDiskFormat = "1";

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string prepareRoot(const std::string& root) {
  makeDirectories(root, 0700);
  makeDirectories(root + "/disks", 0700);
  sweepAbandoned(root, root + "/disks");
  return root;
}

bool byFamiliarName(const Reference& a, const Reference& b) {
  return a.familiar() < b.familiar();
}

}  // namespace

KeyLocks::Held::Held(KeyLocks& locks, std::string key) : locks_(locks), key_(std::move(key)) {
  std::unique_lock lock(locks_.mutex_);
  locks_.changed_.wait(lock, [&] { return !locks_.held_.contains(key_); });
  locks_.held_.insert(key_);
}

KeyLocks::Held::~Held() {
  {
    const std::lock_guard lock(locks_.mutex_);
    locks_.held_.erase(key_);
  }
  locks_.changed_.notify_all();
}

ImageStore::State::State(const std::string& root_folder, const LayerLimits& limits)
    : root(prepareRoot(root_folder)),
      blobs(root),
      layers(root, blobs, limits),
      database(root + "/images.db", kMigrations) {}

void ImageStore::State::record(
    const std::vector<std::pair<Record, std::vector<Reference>>>& images) {
  const auto lock = database.lock();
  Database::Transaction transaction(database);
  for (const auto& [image, names] : images) {
    insert(image);
    for (const Reference& name : names) setName(image.id, name);
  }
  transaction.commit();
}

void ImageStore::State::insert(const Record& image) {
  database
      .prepare(
          "INSERT INTO images(id, manifest, size, added) VALUES(?, ?, ?, ?) "
          "ON CONFLICT(id) DO UPDATE SET manifest=excluded.manifest, size=excluded.size")
      .bind(image.id.text())
      .bind(image.manifest.text())
      .bind(static_cast<int64_t>(image.size_bytes))
      .bind(now())
      .run();
  database.prepare("DELETE FROM image_layers WHERE image=?").bind(image.id.text()).run();
  Statement layer = database.prepare("INSERT INTO image_layers VALUES(?, ?, ?, ?)");
  Statement unpacked = database.prepare("INSERT OR REPLACE INTO unpacked VALUES(?, ?)");
  for (size_t i = 0; i < image.blobs.size(); ++i) {
    layer.bind(image.id.text())
        .bind(static_cast<int64_t>(i))
        .bind(image.blobs[i].text())
        .bind(image.diff_ids[i].text())
        .run();
    unpacked.bind(image.blobs[i].text()).bind(image.diff_ids[i].text()).run();
  }
}

void ImageStore::State::setName(const Digest& image, const Reference& name) {
  const bool by_digest = !name.digest.empty();
  if (!by_digest && name.tag.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "name " + name.text() + " has no tag");
  }
  const std::string text = by_digest ? name.name() + "@" + name.digest.text() : name.text();
  database
      .prepare(by_digest ? "INSERT OR REPLACE INTO digests VALUES(?, ?)"
                         : "INSERT OR REPLACE INTO tags VALUES(?, ?)")
      .bind(text)
      .bind(image.text())
      .run();
}

Image ImageStore::State::load(const Digest& id) {
  Image image;
  image.id = id;
  {
    const auto lock = database.lock();
    Statement row = database.prepare("SELECT manifest, size FROM images WHERE id=?");
    row.bind(id.text());
    if (!row.step()) throw Error(ErrorKind::kNotFound, "No such image: " + id.text());
    image.manifest = Digest::parse(row.text(0));
    image.size_bytes = static_cast<uint64_t>(row.number(1));
    const std::pair<const char*, std::vector<Reference>*> lists[] = {
        {"SELECT name FROM tags WHERE image=?", &image.tags},
        {"SELECT name FROM digests WHERE image=?", &image.digests}};
    for (const auto& [sql, names] : lists) {
      Statement name = database.prepare(sql);
      name.bind(id.text());
      while (name.step()) names->push_back(Reference::parse(name.text(0)));
      std::sort(names->begin(), names->end(), byFamiliarName);
    }
  }
  return inContext("image " + id.text(), [&] {
    image.config = parseImageConfig(blobs.read(id, kMaxConfigBytes));
    const std::string text = blobs.read(image.manifest, kMaxManifestBytes);
    Manifest manifest = std::get<Manifest>(parseManifest(text));
    image.manifest_type = manifest.media_type;
    image.manifest_bytes = text.size();
    image.layer_blobs = std::move(manifest.layers);
    return std::move(image);
  });
}

std::vector<Digest> ImageStore::State::ids() {
  const auto lock = database.lock();
  std::vector<Digest> result;
  Statement row = database.prepare("SELECT id FROM images ORDER BY added DESC, id");
  while (row.step()) result.push_back(Digest::parse(row.text(0)));
  return result;
}

std::optional<Digest> ImageStore::State::findByReference(const Reference& reference) {
  const auto lock = database.lock();
  Statement row =
      database.prepare(reference.digest.empty() ? "SELECT image FROM tags WHERE name=?"
                                                : "SELECT image FROM digests WHERE name=?");
  row.bind(reference.digest.empty() ? reference.text()
                                    : reference.name() + "@" + reference.digest.text());
  if (!row.step()) return std::nullopt;
  return Digest::parse(row.text(0));
}

std::optional<Digest> ImageStore::State::findById(std::string_view name) {
  if (name.starts_with("sha256:")) name.remove_prefix(7);
  const bool hex = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (!hex || name.size() < kMinShortIdDigits || name.size() > kIdHexDigits) return std::nullopt;
  const auto lock = database.lock();
  Statement row = database.prepare("SELECT id FROM images WHERE id GLOB ? LIMIT 2");
  row.bind("sha256:" + std::string(name) + "*");
  if (!row.step()) return std::nullopt;
  const Digest id = Digest::parse(row.text(0));
  if (row.step()) {
    throw Error(ErrorKind::kConflict,
                "image id " + std::string(name) + " is ambiguous (give more digits)");
  }
  return id;
}

// Names win over short ids, full ids over names, as in Docker.
std::optional<Digest> ImageStore::State::resolve(std::string_view name) {
  const std::string_view hex = name.starts_with("sha256:") ? name.substr(7) : name;
  if (name.starts_with("sha256:") || hex.size() == kIdHexDigits) {
    if (const auto id = findById(name)) return id;
    if (hex.size() == kIdHexDigits) return std::nullopt;
  }
  if (const auto id = findByReference(Reference::parse(name))) return id;
  return findById(name);
}

bool ImageStore::State::unpacksTo(const Digest& blob, const Digest& diff_id) {
  const auto lock = database.lock();
  Statement row = database.prepare("SELECT 1 FROM unpacked WHERE blob=? AND diff_id=?");
  return row.bind(blob.text()).bind(diff_id.text()).step();
}

void ImageStore::State::recordUnpacked(const Digest& blob, const Digest& diff_id) {
  const auto lock = database.lock();
  database.prepare("INSERT OR REPLACE INTO unpacked VALUES(?, ?)")
      .bind(blob.text())
      .bind(diff_id.text())
      .run();
}

uint64_t ImageStore::State::unpackedBytes(const std::vector<Digest>& diff_ids) {
  uint64_t total = 0;
  for (const Digest& diff_id : diff_ids) total += layerBytes(diff_id);
  return total;
}

uint64_t ImageStore::State::layerBytes(const Digest& diff_id) {
  {
    const std::lock_guard lock(sizes_mutex);
    const auto known = layer_sizes.find(diff_id);
    if (known != layer_sizes.end()) return known->second;
  }
  uint64_t total = 0;
  for (const Entry& entry : layers.index(diff_id).entries) total += entry.size;
  const std::lock_guard lock(sizes_mutex);
  layer_sizes[diff_id] = total;
  return total;
}

std::string ImageStore::State::diskFolder(const std::vector<Digest>& diff_ids) const {
  std::string text = kDiskFormat;
  for (const Digest& diff_id : diff_ids) text += "\n" + diff_id.text();
  return root + "/disks/" + std::string(Digest::of(text).hex());
}

}  // namespace hull::image
