#include "image/build/cache.h"

#include "image/store/database.h"

namespace hull::build {

namespace {

constexpr const char* kMigrations[] = {
    "CREATE TABLE steps (key TEXT PRIMARY KEY, created TEXT NOT NULL, diff_id TEXT NOT NULL,"
    " blob TEXT NOT NULL, media_type TEXT NOT NULL, blob_bytes INTEGER NOT NULL,"
    " tar_bytes INTEGER NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID"};

}  // namespace

struct BuildCache::State {
  explicit State(image::ImageStore& images)
      : store(images), database(images.blobs().root() + "/build.db", kMigrations) {}

  image::ImageStore& store;
  image::Database database;
};

BuildCache::BuildCache(image::ImageStore& store) : state_(std::make_unique<State>(store)) {}

BuildCache::~BuildCache() = default;

std::optional<CachedStep> BuildCache::find(const std::string& key, std::shared_ptr<void>& pin) {
  const auto lock = state_->database.lock();
  image::Statement select = state_->database.prepare(
      "SELECT created, diff_id, blob, media_type, blob_bytes, tar_bytes FROM steps WHERE key = ?");
  select.bind(key);
  if (!select.step()) return std::nullopt;
  CachedStep step{select.text(0), std::nullopt};
  if (!select.text(1).empty()) {
    image::IngestedLayer layer;
    layer.diff_id = image::Digest::parse(select.text(1));
    layer.blob = image::Digest::parse(select.text(2));
    layer.media_type = select.text(3);
    layer.blob_bytes = static_cast<uint64_t>(select.number(4));
    layer.tar_bytes = static_cast<uint64_t>(select.number(5));
    pin = state_->store.pinLayers({layer.diff_id, layer.blob});
    if (!state_->store.layers().has(layer.diff_id) || !state_->store.blobs().has(layer.blob)) {
      return std::nullopt;
    }
    step.layer = layer;
  }
  state_->database.prepare("UPDATE steps SET used_at = unixepoch() WHERE key = ?").bind(key).run();
  return step;
}

void BuildCache::record(const std::string& key, const CachedStep& step) {
  const image::IngestedLayer layer = step.layer.value_or(image::IngestedLayer{});
  const auto lock = state_->database.lock();
  state_->database.prepare("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, unixepoch())")
      .bind(key)
      .bind(step.created)
      .bind(layer.diff_id.text())
      .bind(layer.blob.text())
      .bind(layer.media_type)
      .bind(static_cast<int64_t>(layer.blob_bytes))
      .bind(static_cast<int64_t>(layer.tar_bytes))
      .run();
}

uint64_t BuildCache::clear() {
  const auto lock = state_->database.lock();
  image::Statement count = state_->database.prepare("SELECT count(*) FROM steps");
  count.step();
  const auto records = static_cast<uint64_t>(count.number(0));
  state_->database.execute("DELETE FROM steps");
  return records;
}

}  // namespace hull::build
