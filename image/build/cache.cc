#include "image/build/cache.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "image/store/database.h"

namespace hull::build {

using image::Digest;

namespace {

constexpr const char* kMigrations[] = {
    "CREATE TABLE steps (key TEXT PRIMARY KEY, created TEXT NOT NULL, diff_id TEXT NOT NULL,"
    " blob TEXT NOT NULL, media_type TEXT NOT NULL, blob_bytes INTEGER NOT NULL,"
    " tar_bytes INTEGER NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID",
    "ALTER TABLE steps ADD COLUMN description TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE steps ADD COLUMN made_at INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE steps ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;"
    "UPDATE steps SET made_at = used_at"};

constexpr auto kCheckInterval = std::chrono::milliseconds(200);
constexpr size_t kMaxDescriptionBytes = 1024;

// Open caches by the folder of their store.
struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<BuildCache>> caches;
};

Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

struct BuildCache::State {
  explicit State(image::ImageStore& images)
      : store(images), database(images.blobs().root() + "/build.db", kMigrations) {}

  bool complete(const image::IngestedLayer& layer) const {
    return store.layers().has(layer.diff_id) && store.blobs().has(layer.blob);
  }
  uint64_t bytesOf(const Digest& diff_id, uint64_t blob_bytes) const {
    return store.layers().has(diff_id) ? store.layers().dataBytes(diff_id) + blob_bytes : 0;
  }
  std::vector<std::string> drop(const std::vector<std::string>& keys);

  image::ImageStore& store;
  image::Database database;
  std::mutex mutex;  // below
  std::condition_variable changed;
  std::set<std::string> under_way;
  std::map<std::string, std::shared_ptr<void>> pins;  // by key
  uint64_t limit = kDefaultCacheBytes;
};

std::shared_ptr<BuildCache> BuildCache::open(image::ImageStore& store) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  auto& known = all.caches[store.blobs().root()];
  std::shared_ptr<BuildCache> cache = known.lock();
  if (!cache) {
    cache.reset(new BuildCache(store));
    known = cache;
  }
  return cache;
}

BuildCache::BuildCache(image::ImageStore& store) : state_(std::make_unique<State>(store)) {
  const auto lock = state_->database.lock();
  image::Statement select = state_->database.prepare("SELECT key, diff_id, blob FROM steps");
  while (select.step()) {
    if (select.text(1).empty()) continue;
    state_->pins[select.text(0)] =
        store.pinLayers({Digest::parse(select.text(1)), Digest::parse(select.text(2))});
  }
}

BuildCache::~BuildCache() = default;

std::shared_ptr<void> BuildCache::begin(const std::string& key,
                                        const std::function<void()>& check) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  while (state.under_way.contains(key)) {
    state.changed.wait_for(lock, kCheckInterval);
    check();
  }
  state.under_way.insert(key);
  return {nullptr, [&state, key](void*) {
            {
              const std::lock_guard guard(state.mutex);
              state.under_way.erase(key);
            }
            state.changed.notify_all();
          }};
}

std::optional<CachedStep> BuildCache::find(const std::string& key, std::shared_ptr<void>& pin) {
  const auto lock = state_->database.lock();
  image::Statement select = state_->database.prepare(
      "SELECT created, diff_id, blob, media_type, blob_bytes, tar_bytes FROM steps WHERE key = ?");
  select.bind(key);
  if (!select.step()) return std::nullopt;
  CachedStep step{select.text(0), std::nullopt};
  if (!select.text(1).empty()) {
    image::IngestedLayer layer;
    layer.diff_id = Digest::parse(select.text(1));
    layer.blob = Digest::parse(select.text(2));
    layer.media_type = select.text(3);
    layer.blob_bytes = static_cast<uint64_t>(select.number(4));
    layer.tar_bytes = static_cast<uint64_t>(select.number(5));
    pin = state_->store.pinLayers({layer.diff_id, layer.blob});
    if (!state_->complete(layer)) return std::nullopt;
    step.layer = layer;
  }
  state_->database.prepare("UPDATE steps SET used_at = unixepoch(), uses = uses + 1 WHERE key = ?")
      .bind(key)
      .run();
  return step;
}

void BuildCache::record(const std::string& key, const CachedStep& step,
                        const std::string& description) {
  const image::IngestedLayer layer = step.layer.value_or(image::IngestedLayer{});
  {
    const auto lock = state_->database.lock();
    state_->database
        .prepare(
            "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, unixepoch(), ?, "
            "unixepoch(), 0)")
        .bind(key)
        .bind(step.created)
        .bind(layer.diff_id.text())
        .bind(layer.blob.text())
        .bind(layer.media_type)
        .bind(static_cast<int64_t>(layer.blob_bytes))
        .bind(static_cast<int64_t>(layer.tar_bytes))
        .bind(description.substr(0, kMaxDescriptionBytes))
        .run();
  }
  if (!step.layer) return;
  uint64_t limit = 0;
  {
    const std::lock_guard lock(state_->mutex);
    state_->pins[key] = state_->store.pinLayers({layer.diff_id, layer.blob});
    limit = state_->limit;
  }
  Prune options;
  options.keep_bytes = limit;
  prune(options);
}

std::vector<CacheRecord> BuildCache::list() {
  std::vector<CacheRecord> records;
  std::map<std::string, size_t> layers;
  const auto lock = state_->database.lock();
  image::Statement select = state_->database.prepare(
      "SELECT key, description, diff_id, blob_bytes, made_at, used_at, uses FROM steps"
      " ORDER BY used_at, made_at, key");
  std::vector<std::string> ids;
  while (select.step()) {
    CacheRecord record;
    record.key = select.text(0);
    record.description = select.text(1);
    ids.push_back(select.text(2));
    if (!ids.back().empty()) {
      ++layers[ids.back()];
      record.bytes =
          state_->bytesOf(Digest::parse(ids.back()), static_cast<uint64_t>(select.number(3)));
    }
    record.created_at = select.number(4);
    record.used_at = select.number(5);
    record.uses = select.number(6);
    records.push_back(std::move(record));
  }
  for (size_t i = 0; i < records.size(); ++i)
    records[i].shared = !ids[i].empty() && layers[ids[i]] > 1;
  return records;
}

void BuildCache::setLimit(uint64_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->limit = bytes;
}

std::vector<std::string> BuildCache::State::drop(const std::vector<std::string>& keys) {
  {
    const auto lock = database.lock();
    image::Database::Transaction transaction(database);
    image::Statement remove = database.prepare("DELETE FROM steps WHERE key = ?");
    for (const auto& key : keys) remove.bind(key).run();
    transaction.commit();
  }
  const std::lock_guard lock(mutex);
  for (const auto& key : keys) pins.erase(key);
  return keys;
}

std::vector<std::string> BuildCache::prune(const Prune& options) {
  std::vector<CacheRecord> records = list();
  std::reverse(records.begin(), records.end());  // the latest used first
  std::vector<std::string> gone;
  uint64_t kept = 0;
  for (const auto& record : records) {
    const bool old = record.used_at < options.used_before;
    // A record without a layer weighs nothing, and is of no use once those around it are gone.
    const bool fits = options.keep_bytes != 0 && kept + record.bytes <= options.keep_bytes;
    if (fits || !old)
      kept += record.bytes;
    else
      gone.push_back(record.key);
  }
  return gone.empty() ? gone : state_->drop(gone);
}

}  // namespace hull::build
