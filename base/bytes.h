// Bounded binary encoding. ByteWriter appends, ByteReader consumes; both little-endian, strings and
// blobs with a 32-bit length. A reader never reads past its end: the first short or over-limit
// field makes it fail, every later read returns zero or empty, and the caller asks `ok()` once.
// Used where bytes cross a trust boundary (guest protocol, layer index, saved VM state). No
// allocation larger than the input. Any thread, no state shared.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace hull {

static_assert(std::endian::native == std::endian::little, "x86_64 only");

class ByteWriter {
 public:
  template <typename T>
  requires std::is_integral_v<T>
  void number(T value) {
    const auto* bytes = reinterpret_cast<const char*>(&value);
    out_.append(bytes, sizeof value);
  }
  void u8(uint8_t value) { number(value); }
  void u16(uint16_t value) { number(value); }
  void u32(uint32_t value) { number(value); }
  void u64(uint64_t value) { number(value); }
  void i64(int64_t value) { number(value); }
  void boolean(bool value) { u8(value ? 1 : 0); }
  void string(std::string_view text) {
    u32(static_cast<uint32_t>(text.size()));
    out_.append(text);
  }
  void strings(const std::vector<std::string>& list) {
    u32(static_cast<uint32_t>(list.size()));
    for (const auto& item : list) string(item);
  }
  void raw(std::string_view bytes) { out_.append(bytes); }

  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  requires std::is_integral_v<T> T number() {
    T value{};
    if (!need(sizeof value)) return T{};
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }
  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint32_t u32() { return number<uint32_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  int64_t i64() { return number<int64_t>(); }
  bool boolean() {
    const uint8_t value = u8();
    if (value > 1) ok_ = false;
    return value == 1;
  }
  // A view into the input; valid as long as the input is.
  std::string_view view(size_t limit) {
    const uint32_t size = u32();
    if (size > limit || !need(size)) {
      ok_ = false;
      return {};
    }
    const std::string_view text = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return text;
  }
  std::string string(size_t limit) { return std::string(view(limit)); }
  std::vector<std::string> strings(size_t max_count, size_t max_size) {
    const uint32_t count = u32();
    std::vector<std::string> list;
    if (count > max_count || count > rest_.size() / sizeof(uint32_t)) {
      ok_ = false;
      return list;
    }
    list.reserve(count);
    for (uint32_t i = 0; i < count && ok_; ++i) list.push_back(string(max_size));
    return list;
  }
  std::string_view raw(size_t size) {
    if (!need(size)) return {};
    const std::string_view text = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return text;
  }

  bool ok() const { return ok_; }
  bool atEnd() const { return rest_.empty(); }
  bool complete() const { return ok_ && rest_.empty(); }  // everything read, nothing left over
  size_t remaining() const { return rest_.size(); }
  void fail() { ok_ = false; }

 private:
  bool need(size_t size) {
    if (!ok_ || rest_.size() < size) {
      ok_ = false;
      return false;
    }
    return true;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace hull
