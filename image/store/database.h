// SQLite with errors as exceptions and statements as values. One connection, usable from any thread
// one at a time: hold `lock()` around every use. The schema's version is kept in user_version; a
// database written by a newer program is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace hull::image {

class Statement {
 public:
  Statement(sqlite3* database, std::string_view sql);
  Statement(Statement&& other) noexcept;
  ~Statement();
  // Parameters in order of the calls.
  Statement& bind(std::string_view text);
  Statement& bind(int64_t number);
  bool step();  // false when there is no further row
  void run();   // steps to the end, resets: ready for new parameters
  std::string text(int column) const;
  int64_t number(int column) const;

 private:
  sqlite3* database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

class Database {
 public:
  // Opens or creates `path` (WAL, foreign keys, synchronous=FULL). `migrations[i]` leads from
  // version i to i + 1.
  Database(const std::string& path, std::span<const char* const> migrations);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
  Statement prepare(std::string_view sql) { return {database_, sql}; }
  void execute(const std::string& sql);

  // Rolled back unless committed.
  class Transaction {
   public:
    explicit Transaction(Database& database);
    ~Transaction();
    void commit();

   private:
    Database& database_;
    bool open_ = true;
  };

 private:
  void migrate(std::span<const char* const> migrations);

  std::mutex mutex_;
  sqlite3* database_ = nullptr;
};

}  // namespace hull::image
