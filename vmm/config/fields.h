// The configuration's JSON: what vm_config.cc and changes.cc share, nobody else's. Any thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "vmm/config/vm_config.h"

namespace hull::vmm::config {

using nlohmann::json;

inline constexpr uint64_t kMaxDiskBytes = uint64_t{1} << 60;

[[noreturn]] inline void fail(const std::string& field, const std::string& cause) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("vm config: {}: {}", field, cause));
}

// One JSON object being read: every key must be known, every value of its type and range.
class Fields {
 public:
  Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) fail(path_.empty() ? "document" : path_, "not an object");
  }

  std::string name(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }
  const json* find(const char* key) {
    seen_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  template <typename T>
  void number(const char* key, T& into) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_number_integer()) fail(name(key), "not an integer");
    constexpr auto kLeast = std::numeric_limits<T>::min();
    constexpr auto kMost = std::numeric_limits<T>::max();
    if (value->is_number_unsigned()) {
      const auto number = value->get<uint64_t>();
      if (number > static_cast<uint64_t>(kMost)) fail(name(key), "out of range");
      into = static_cast<T>(number);
    } else {
      const auto number = value->get<int64_t>();
      if (std::is_unsigned_v<T> || number < static_cast<int64_t>(kLeast)) {
        fail(name(key), "out of range");
      }
      into = static_cast<T>(number);
    }
  }
  void boolean(const char* key, bool& into) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) fail(name(key), "not true or false");
    into = value->get<bool>();
  }
  void string(const char* key, std::string& into) {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) fail(name(key), "not a string");
    into = value->get<std::string>();
  }
  const json* array(const char* key, size_t limit) {
    const json* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_array()) fail(name(key), "not an array");
    if (value->size() > limit) fail(name(key), fmt::format("more than {} entries", limit));
    return value;
  }
  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (!seen_.contains(key)) fail(name(key.substr(0, 64)), "unknown field");
    }
  }

 private:
  const json& object_;
  std::string path_;
  std::set<std::string> seen_;
};

// What this side wrote, or somebody else: bounded in size and depth before it is looked at.
json parseDocument(std::string_view text);
void requireFd(int fd, const std::string& field);
DiskSegment segmentOf(const json& value, const std::string& path);
// In order, without overlap, inside of the disk; `field` names the list.
void checkSegments(const std::vector<DiskSegment>& segments, uint64_t disk_bytes,
                   const std::string& field);
void limits(Fields& fields, const char* key, IoLimits& into);
json jsonOf(const DiskSegment& segment);
json jsonOf(const IoLimits& limits);

}  // namespace hull::vmm::config
