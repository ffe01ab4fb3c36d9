// The Range header of a request for a blob (RFC 9110 §14). Untrusted input. Pure functions.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hull::registry {

struct ByteRange {
  uint64_t first = 0;
  uint64_t last = 0;  // inclusive
};

// Digits and nothing else; nullopt also when they do not fit.
inline std::optional<uint64_t> parseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One range of "bytes=…". nullopt: to be ignored, the whole is answered (several ranges, other
// units, bad syntax: §14.2 allows it). Throws ApiError 416 when it lies outside of `size` bytes.
std::optional<ByteRange> parseRange(std::string_view header, uint64_t size);

}  // namespace hull::registry
