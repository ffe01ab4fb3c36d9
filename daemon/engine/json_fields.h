// Typed access to the JSON of API requests: a field of the wrong type is kInvalidArgument naming
// it; absent and null are the same (Go writes empty lists as null). For .cc files only.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace hull::engine::fields {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 64;

[[noreturn]] inline void wrongType(std::string_view key, std::string_view expected) {
  throw Error(ErrorKind::kInvalidArgument,
              "invalid JSON: field " + std::string(key) + ": expected " + std::string(expected));
}

// An object; empty text is {}. Depth is bounded.
inline Json parseObject(std::string_view text, std::string_view what) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return Json::object();
  bool too_deep = false;
  const auto bounded = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxJsonDepth;
    return !too_deep;
  };
  Json value = Json::parse(text, bounded, false);
  if (too_deep || !value.is_object()) {
    throw Error(ErrorKind::kInvalidArgument, "invalid JSON in " + std::string(what));
  }
  return value;
}

inline const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

inline std::string text(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return {};
  if (!value->is_string()) wrongType(key, "a string");
  return value->get<std::string>();
}

inline bool boolean(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return false;
  if (!value->is_boolean()) wrongType(key, "true or false");
  return value->get<bool>();
}

inline int64_t integer(const Json& object, const char* key, int64_t otherwise = 0) {
  const Json* value = find(object, key);
  if (!value) return otherwise;
  if (value->is_number_float() && value->get<double>() > -9e15 && value->get<double>() < 9e15) {
    return static_cast<int64_t>(value->get<double>());
  }
  if (!value->is_number_integer()) wrongType(key, "a number");
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
    wrongType(key, "a smaller number");
  }
  return value->get<int64_t>();
}

// A list of strings; a single string counts as a list of one (Docker's strslice).
inline std::vector<std::string> texts(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return {};
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array()) wrongType(key, "a list of strings");
  std::vector<std::string> list;
  for (const Json& item : *value) {
    if (!item.is_string()) wrongType(key, "a list of strings");
    list.push_back(item.get<std::string>());
  }
  return list;
}

inline std::map<std::string, std::string> textMap(const Json& object, const char* key) {
  std::map<std::string, std::string> map;
  const Json* value = find(object, key);
  if (!value) return map;
  if (!value->is_object()) wrongType(key, "an object of strings");
  for (const auto& [name, item] : value->items()) {
    if (!item.is_string()) wrongType(key, "an object of strings");
    map[name] = item.get<std::string>();
  }
  return map;
}

inline std::vector<std::string> keys(const Json& object, const char* key) {
  std::vector<std::string> list;
  const Json* value = find(object, key);
  if (!value) return list;
  if (!value->is_object()) wrongType(key, "an object");
  for (const auto& [name, item] : value->items()) list.push_back(name);
  return list;
}

// For text that may hold any bytes.
inline std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hull::engine::fields
