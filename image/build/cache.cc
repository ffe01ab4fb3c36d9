#include "image/build/cache.h"

#include <sqlite3.h>

#include <mutex>

#include "base/error.h"

namespace hull::build {

namespace {

constexpr int kBusyTimeoutMs = 10'000;

class Statement {
 public:
  Statement(sqlite3* db, const char* sql) : db_(db) {
    if (sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) != SQLITE_OK) fail();
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void bind(int index, const std::string& text) {
    sqlite3_bind_text(statement_, index, text.data(), static_cast<int>(text.size()),
                      SQLITE_TRANSIENT);
  }
  void bind(int index, uint64_t number) {
    sqlite3_bind_int64(statement_, index, static_cast<sqlite3_int64>(number));
  }
  bool step() {
    const int status = sqlite3_step(statement_);
    if (status != SQLITE_ROW && status != SQLITE_DONE) fail();
    return status == SQLITE_ROW;
  }
  std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)))
                 : "";
  }
  uint64_t number(int column) const {
    return static_cast<uint64_t>(sqlite3_column_int64(statement_, column));
  }

 private:
  [[noreturn]] void fail() const {
    throw Error(sqlite3_errcode(db_) == SQLITE_FULL ? ErrorKind::kNoSpace : ErrorKind::kInternal,
                std::string("build cache: ") + sqlite3_errmsg(db_));
  }
  sqlite3* db_;
  sqlite3_stmt* statement_ = nullptr;
};

}  // namespace

struct BuildCache::State {
  explicit State(image::ImageStore& images) : store(images) {}
  ~State() { sqlite3_close(db); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  image::ImageStore& store;
  std::mutex mutex;
  sqlite3* db = nullptr;  // guarded by mutex
};

BuildCache::BuildCache(image::ImageStore& store) : state_(std::make_unique<State>(store)) {
  const std::string path = store.blobs().root() + "/build.db";
  if (sqlite3_open(path.c_str(), &state_->db) != SQLITE_OK) {
    throw Error(ErrorKind::kInternal,
                "open build cache " + path + ": " + sqlite3_errmsg(state_->db));
  }
  sqlite3_busy_timeout(state_->db, kBusyTimeoutMs);
  for (const char* sql : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL",
                          "CREATE TABLE IF NOT EXISTS steps (key TEXT PRIMARY KEY, created TEXT "
                          "NOT NULL, diff_id TEXT NOT NULL,"
                          " blob TEXT NOT NULL, media_type TEXT NOT NULL, blob_bytes INTEGER NOT "
                          "NULL, tar_bytes INTEGER NOT NULL,"
                          " used_at INTEGER NOT NULL) WITHOUT ROWID"}) {
    Statement statement(state_->db, sql);
    while (statement.step()) {
    }
  }
}

BuildCache::~BuildCache() = default;

std::optional<CachedStep> BuildCache::find(const std::string& key, std::shared_ptr<void>& pin) {
  const std::lock_guard lock(state_->mutex);
  Statement select(
      state_->db,
      "SELECT created, diff_id, blob, media_type, blob_bytes, tar_bytes FROM steps WHERE key = ?");
  select.bind(1, key);
  if (!select.step()) return std::nullopt;
  CachedStep step{select.text(0), std::nullopt};
  if (!select.text(1).empty()) {
    image::IngestedLayer layer;
    layer.diff_id = image::Digest::parse(select.text(1));
    layer.blob = image::Digest::parse(select.text(2));
    layer.media_type = select.text(3);
    layer.blob_bytes = select.number(4);
    layer.tar_bytes = select.number(5);
    pin = state_->store.pinLayers({layer.diff_id});
    if (!state_->store.layers().has(layer.diff_id) || !state_->store.blobs().has(layer.blob))
      return std::nullopt;
    step.layer = layer;
  }
  Statement touch(state_->db, "UPDATE steps SET used_at = unixepoch() WHERE key = ?");
  touch.bind(1, key);
  touch.step();
  return step;
}

void BuildCache::record(const std::string& key, const CachedStep& step) {
  const std::lock_guard lock(state_->mutex);
  Statement insert(state_->db,
                   "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, unixepoch())");
  const image::IngestedLayer layer = step.layer.value_or(image::IngestedLayer{});
  insert.bind(1, key);
  insert.bind(2, step.created);
  insert.bind(3, layer.diff_id.text());
  insert.bind(4, layer.blob.text());
  insert.bind(5, layer.media_type);
  insert.bind(6, layer.blob_bytes);
  insert.bind(7, layer.tar_bytes);
  insert.step();
}

uint64_t BuildCache::clear() {
  const std::lock_guard lock(state_->mutex);
  Statement count(state_->db, "SELECT count(*) FROM steps");
  count.step();
  const uint64_t records = count.number(0);
  Statement(state_->db, "DELETE FROM steps").step();
  return records;
}

}  // namespace hull::build
