#include "daemon/api/time_query.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {

constexpr size_t kDateSize = 10;  // 2006-01-02

bool isDate(const std::string& text) {
  return text.size() == kDateSize && text[4] == '-' && text[7] == '-';
}

// Go's durations: "24h", "1h30m", "1.5s". nullopt when it is none.
std::optional<int64_t> durationNs(std::string_view text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  constexpr double kMostNs = 9e18;
  double total = 0;
  bool any = false;
  for (; !text.empty(); any = true) {
    double number = 0;
    const auto [rest, failed] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (failed != std::errc() || number < 0) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(rest - text.data()));
    const auto unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& each) {
      // "m" is not the beginning of "ms".
      return text.starts_with(each.first) && !(each.first == "m" && text.starts_with("ms"));
    });
    if (unit == std::end(kUnits)) return std::nullopt;
    total += number * unit->second;
    if (total > kMostNs) return std::nullopt;
    text.remove_prefix(unit->first.size());
  }
  return any ? std::optional(static_cast<int64_t>(total)) : std::nullopt;
}

}  // namespace

std::optional<int64_t> timeQuery(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const Error invalid(ErrorKind::kInvalidArgument,
                      "invalid time \"" + text +
                          "\" (write a duration like 24h, a date, RFC 3339 or Unix seconds)");
  if (const auto before = durationNs(text)) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() - *before;
  }
  if (isDate(text)) return timeQuery(text + "T00:00:00Z");
  if (text.find('T') != std::string::npos) {
    const int64_t ns = parseTime(text);
    if (ns == 0) throw invalid;
    return ns;
  }
  constexpr int64_t kMaxSeconds = 9'000'000'000;  // in nanoseconds it must fit
  int64_t seconds = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, seconds);
  if (failed != std::errc() || seconds > kMaxSeconds || seconds < -kMaxSeconds) throw invalid;
  int64_t ns = seconds * 1'000'000'000;
  if (rest != end) {
    if (*rest != '.') throw invalid;
    int64_t unit = 100'000'000;
    for (const char* digit = rest + 1; digit != end; ++digit, unit /= 10) {
      if (*digit < '0' || *digit > '9') throw invalid;
      ns += (*digit - '0') * unit;
    }
  }
  // Docker's clients send 0 and -1 for "no bound".
  return ns <= 0 ? std::nullopt : std::optional(ns);
}

}  // namespace hull::engine::api
