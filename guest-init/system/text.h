// Small helpers on text: numbers and splitting, without locales. Any thread.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::guest {

// The whole of `text` as an unsigned number; nullopt for anything else, overflow included.
template <typename T = uint64_t>
std::optional<T> parseNumber(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Calls visit(piece) for each piece between separators; stops when it returns false.
template <typename Visit>
void splitInto(std::string_view text, char separator, Visit&& visit) {
  for (;;) {
    const size_t at = text.find(separator);
    if (!visit(text.substr(0, at)) || at == std::string_view::npos) return;
    text.remove_prefix(at + 1);
  }
}

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  splitInto(text, separator, [&pieces](std::string_view piece) {
    pieces.push_back(piece);
    return true;
  });
  return pieces;
}

}  // namespace hull::guest
