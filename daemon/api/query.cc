#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "daemon/api/http.h"

namespace hull::engine::api {

namespace {

int hexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

std::string percentDecode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const int high = i + 1 < text.size() ? hexValue(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hexValue(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        throw Error(ErrorKind::kInvalidArgument, "invalid URL escape in the request's address");
      }
      decoded.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else {
      decoded.push_back(plus_is_space && text[i] == '+' ? ' ' : text[i]);
    }
  }
  return decoded;
}

Query::Query(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    values_.emplace_back(
        percentDecode(pair.substr(0, equals), true),
        equals < pair.size() ? percentDecode(pair.substr(equals + 1), true) : std::string());
  }
}

bool Query::has(std::string_view key) const {
  return std::any_of(values_.begin(), values_.end(),
                     [&](const auto& value) { return value.first == key; });
}

std::string Query::get(std::string_view key, std::string_view otherwise) const {
  for (const auto& [name, value] : values_) {
    if (name == key) return value;
  }
  return std::string(otherwise);
}

std::vector<std::string> Query::all(std::string_view key) const {
  std::vector<std::string> found;
  for (const auto& [name, value] : values_) {
    if (name == key) found.push_back(value);
  }
  return found;
}

bool Query::flag(std::string_view key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const std::string value = lower(get(key));
  return !(value.empty() || value == "0" || value == "no" || value == "false" || value == "none");
}

std::optional<int64_t> Query::number(std::string_view key) const {
  const std::string text = get(key);
  if (text.empty()) return std::nullopt;
  int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorKind::kInvalidArgument,
                "query parameter " + std::string(key) + ": not a number: " + text);
  }
  return value;
}

std::string Request::header(const std::string& lower_case_name) const {
  const auto found = headers.find(lower_case_name);
  return found == headers.end() ? std::string() : found->second;
}

}  // namespace hull::engine::api
