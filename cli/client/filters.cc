#include "cli/client/filters.h"

#include <fmt/format.h>
#include <time.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr int64_t kMostSeconds = 9'000'000'000;

[[noreturn]] void invalidTime(const std::string& text) {
  throw Error(
      ErrorKind::kInvalidArgument,
      fmt::format("invalid time \"{}\" (like 10m, 2h, a Unix time or 2026-01-31T12:00:00Z)", text));
}

int64_t secondsOf(char unit, const std::string& text) {
  switch (unit) {
    case 's':
      return 1;
    case 'm':
      return 60;
    case 'h':
      return 3600;
    case 'd':
      return 86400;
    default:
      invalidTime(text);
  }
}

}  // namespace

std::string filtersQuery(const std::vector<std::string>& filters) {
  json object = json::object();
  for (const auto& item : filters) {
    const size_t equals = item.find('=');
    if (equals == std::string::npos) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("invalid argument \"{}\" for \"-f, --filter\" flag: bad format of "
                              "filter (expected name=value)",
                              item));
    }
    object[item.substr(0, equals)].push_back(item.substr(equals + 1));
  }
  return object.empty() ? "" : object.dump();
}

std::string timeQuery(const std::string& text) {
  if (text.empty()) return "";
  if (text.find('T') != std::string::npos) {
    if (parseTimestamp(text) == 0) invalidTime(text);
    return text;  // with its fraction
  }
  int64_t ago = 0;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at != end;) {
    int64_t number = 0;
    const auto [rest, failed] = std::from_chars(at, end, number);
    if (failed != std::errc() || number < 0 || number > kMostSeconds) invalidTime(text);
    if (at == text.data() && (rest == end || *rest == '.')) return text;  // Unix time
    if (rest == end) invalidTime(text);
    ago += number * secondsOf(*rest, text);
    at = rest + 1;
  }
  return std::to_string(time(nullptr) - ago);
}

}  // namespace hull::cli
