#include "image/layer/tar_fields.h"

#include <algorithm>
#include <limits>

namespace hull::image::tar {

namespace {

constexpr uint32_t kNanosecondDigits = 9;

bool isBlank(char c) {
  return c == ' ' || c == '\0';
}
bool isDigit(char c) {
  return c >= '0' && c <= '9';
}

// Two's complement, most significant byte first; the top bit of the first byte only marks the form.
std::optional<int64_t> base256(std::string_view field) {
  const bool negative = (static_cast<unsigned char>(field[0]) & 0x40) != 0;
  const auto invert = static_cast<unsigned char>(negative ? 0xff : 0x00);
  uint64_t value = 0;
  for (size_t i = 0; i < field.size(); ++i) {
    auto byte = static_cast<unsigned char>(static_cast<unsigned char>(field[i]) ^ invert);
    if (i == 0) byte &= 0x7f;
    if (value >> 56 != 0) return std::nullopt;
    value = value << 8 | byte;
  }
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  const auto result = static_cast<int64_t>(value);
  return negative ? ~result : result;
}

}  // namespace

std::string_view raw(std::string_view block, Field field) {
  return block.substr(field.offset, field.size);
}

std::string_view text(std::string_view block, Field field) {
  const std::string_view bytes = raw(block, field);
  return bytes.substr(0, bytes.find('\0'));
}

std::optional<int64_t> number(std::string_view field) {
  if (!field.empty() && (static_cast<unsigned char>(field[0]) & 0x80) != 0) return base256(field);
  while (!field.empty() && isBlank(field.front())) field.remove_prefix(1);
  while (!field.empty() && isBlank(field.back())) field.remove_suffix(1);
  // Some tools end a number with a blank and leave rubbish behind it.
  field = field.substr(0, field.find('\0'));
  int64_t value = 0;  // at most 12 digits of 3 bits
  for (const char c : field) {
    if (c < '0' || c > '7') return std::nullopt;
    value = value << 3 | (c - '0');
  }
  return value;
}

std::optional<uint64_t> decimal(std::string_view text) {
  if (text.empty() || text.size() > 19 || !std::all_of(text.begin(), text.end(), isDigit)) {
    return std::nullopt;
  }
  uint64_t value = 0;
  for (const char c : text) value = value * 10 + static_cast<uint64_t>(c - '0');
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return value;
}

std::optional<Time> time(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const size_t dot = text.find('.');
  const auto whole = decimal(text.substr(0, dot));
  if (!whole) return std::nullopt;
  uint32_t nanoseconds = 0;
  if (dot != std::string_view::npos) {
    const std::string_view fraction = text.substr(dot + 1);
    if (!std::all_of(fraction.begin(), fraction.end(), isDigit)) return std::nullopt;
    for (uint32_t i = 0; i < kNanosecondDigits; ++i) {
      nanoseconds =
          nanoseconds * 10 + (i < fraction.size() ? static_cast<uint32_t>(fraction[i] - '0') : 0);
    }
  }
  Time result{static_cast<int64_t>(*whole), nanoseconds};
  if (negative) {
    result.seconds = -result.seconds;
    if (nanoseconds != 0) {
      result.seconds -= 1;
      result.nanoseconds = 1'000'000'000 - nanoseconds;
    }
  }
  return result;
}

bool checksumFits(std::string_view block) {
  const auto stored = number(raw(block, kChecksum));
  if (!stored) return false;
  int64_t plain = 0, with_sign = 0;
  for (size_t i = 0; i < block.size(); ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    const char c = own ? ' ' : block[i];
    plain += static_cast<unsigned char>(c);
    with_sign += static_cast<signed char>(c);
  }
  return *stored == plain || *stored == with_sign;
}

std::optional<std::pair<std::string, std::string>> takePaxRecord(std::string_view& rest) {
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto length = decimal(rest.substr(0, space));
  if (!length || *length > rest.size() || *length < space + 3) return std::nullopt;
  std::string_view record = rest.substr(space + 1, static_cast<size_t>(*length) - space - 1);
  if (record.back() != '\n') return std::nullopt;
  record.remove_suffix(1);
  const size_t equals = record.find('=');
  if (equals == std::string_view::npos || equals == 0) return std::nullopt;
  rest.remove_prefix(static_cast<size_t>(*length));
  return std::pair(std::string(record.substr(0, equals)), std::string(record.substr(equals + 1)));
}

std::string decodePercent(std::string_view text) {
  const auto digit = [](char c) -> int {
    if (isDigit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      result.push_back(static_cast<char>(digit(text[i + 1]) << 4 | digit(text[i + 2])));
      i += 2;
    } else {
      result.push_back(text[i]);
    }
  }
  return result;
}

}  // namespace hull::image::tar
