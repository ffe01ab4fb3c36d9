// Lower-case hexadecimal text of bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace hull {

inline std::string toHex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte value : bytes) {
    const auto number = std::to_integer<unsigned>(value);
    text.push_back(kDigits[number >> 4]);
    text.push_back(kDigits[number & 15]);
  }
  return text;
}

}  // namespace hull
