#include "image/store/database.h"

#include <sqlite3.h>

#include <utility>

#include "base/error.h"

namespace hull::image {

namespace {

constexpr int kBusyTimeoutMs = 10'000;

Error databaseError(sqlite3* database, const std::string& what) {
  const int code = database ? sqlite3_errcode(database) : SQLITE_NOMEM;
  ErrorKind kind = ErrorKind::kInternal;
  if (code == SQLITE_FULL) kind = ErrorKind::kNoSpace;
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) kind = ErrorKind::kCorrupt;
  if (code == SQLITE_BUSY || code == SQLITE_LOCKED) kind = ErrorKind::kConflict;
  return Error(kind, what + ": " + (database ? sqlite3_errmsg(database) : "out of memory"));
}

}  // namespace

Statement::Statement(sqlite3* database, std::string_view sql) : database_(database) {
  if (sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_,
                         nullptr) != SQLITE_OK) {
    throw databaseError(database, "prepare \"" + std::string(sql) + "\"");
  }
}

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      bound_(other.bound_) {}

Statement::~Statement() {
  sqlite3_finalize(statement_);
}

Statement& Statement::bind(std::string_view text) {
  // SQLITE_TRANSIENT (a cast of -1 in the header): SQLite keeps a copy.
  const auto copy = reinterpret_cast<sqlite3_destructor_type>(intptr_t{-1});
  if (sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), copy, SQLITE_UTF8) !=
      SQLITE_OK) {
    throw databaseError(database_, "use database");
  }
  return *this;
}

Statement& Statement::bind(int64_t number) {
  if (sqlite3_bind_int64(statement_, ++bound_, number) != SQLITE_OK) {
    throw databaseError(database_, "use database");
  }
  return *this;
}

bool Statement::step() {
  const int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  throw databaseError(database_, "use database");
}

void Statement::run() {
  while (step()) {
  }
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  bound_ = 0;
}

std::string Statement::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (!bytes) return {};
  return std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_, column);
}

Database::Database(const std::string& path, std::span<const char* const> migrations) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  try {
    if (sqlite3_open_v2(path.c_str(), &database_, flags, nullptr) != SQLITE_OK) {
      throw databaseError(database_, "open database");
    }
    sqlite3_busy_timeout(database_, kBusyTimeoutMs);
    execute("PRAGMA journal_mode=WAL");
    execute("PRAGMA synchronous=FULL");
    execute("PRAGMA foreign_keys=ON");
    migrate(migrations);
  } catch (const Error& error) {
    sqlite3_close_v2(database_);
    throw error.within(path);
  }
}

Database::~Database() {
  sqlite3_close_v2(database_);
}

void Database::execute(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    throw databaseError(database_, "use database");
  }
}

void Database::migrate(std::span<const char* const> migrations) {
  execute("BEGIN IMMEDIATE");  // two processes may open it for the first time at once
  Statement statement = prepare("PRAGMA user_version");
  statement.step();
  const auto version = static_cast<uint64_t>(statement.number(0));
  statement.run();
  if (version > migrations.size()) {
    execute("ROLLBACK");
    throw Error(ErrorKind::kNotSupported,
                "it was written by a newer Hull (schema " + std::to_string(version) +
                    ", this one knows " + std::to_string(migrations.size()) + "): use that one");
  }
  for (uint64_t i = version; i < migrations.size(); ++i) execute(migrations[i]);
  execute("PRAGMA user_version=" + std::to_string(migrations.size()));
  execute("COMMIT");
}

Database::Transaction::Transaction(Database& database) : database_(database) {
  database_.execute("BEGIN IMMEDIATE");
}

Database::Transaction::~Transaction() {
  if (open_) sqlite3_exec(database_.database_, "ROLLBACK", nullptr, nullptr, nullptr);
}

void Database::Transaction::commit() {
  database_.execute("COMMIT");
  open_ = false;
}

}  // namespace hull::image
