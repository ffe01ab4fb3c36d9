// How Docker's client writes sizes, times, durations, tables and rows. Pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hull::cli {

std::string humanSize(double bytes);               // "117MB": decimal units, up to 3 digits
std::string humanDuration(int64_t seconds);        // "About a minute", "3 hours"
std::string ago(int64_t unix_seconds);             // "3 hours ago"
int64_t parseTimestamp(std::string_view rfc3339);  // to Unix seconds; 0 for what is none
uint64_t parseSize(std::string_view text, std::string_view option);  // "512m" → bytes; throws
std::string ellipsis(std::string_view text, size_t width);
std::string shortId(std::string_view id);  // 12 digits, without "sha256:"

// Columns padded to their widest cell, three blanks apart.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// One object per line through --format ("json" or a template), or as a table of `columns` with
// "table …" and by default. `rows` are objects keyed by Docker's field names.
struct Column {
  std::string title;
  std::string field;
};
std::string formatRows(const std::string& format, const std::vector<Column>& columns,
                       const std::vector<nlohmann::json>& rows);

// The nearest of `candidates` by edit distance, empty when nothing is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace hull::cli
