#include "daemon/api/time_query.h"

#include <charconv>

#include "base/error.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

std::optional<int64_t> timeQuery(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const Error invalid(ErrorKind::kInvalidArgument, "invalid time \"" + text + "\"");
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
