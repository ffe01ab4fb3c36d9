#include "image/types/json.h"

#include "base/error.h"

namespace hull::image::json {

Json parseDocument(std::string_view text, size_t limit, std::string_view what) {
  const std::string name(what);
  if (text.size() > limit) {
    throw Error(ErrorKind::kTooLarge,
                "parse " + name + ": larger than " + std::to_string(limit) + " bytes");
  }
  Json document = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    throw Error(ErrorKind::kCorrupt, "parse " + name + ": not valid JSON");
  }
  if (!document.is_structured()) {
    throw Error(ErrorKind::kCorrupt, "parse " + name + ": not a JSON object");
  }
  return document;
}

void wrongType(const char* key, const char* expected) {
  throw Error(ErrorKind::kCorrupt, "field \"" + std::string(key) + "\" is not " + expected);
}

const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) wrongType(key, "inside an object");
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string text(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return {};
  if (!value->is_string()) wrongType(key, "text");
  return value->get<std::string>();
}

uint64_t size(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return 0;
  if (!value->is_number_unsigned()) wrongType(key, "a size");
  return value->get<uint64_t>();
}

int64_t integer(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return 0;
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX)) {
    wrongType(key, "a whole number");
  }
  return value->get<int64_t>();
}

bool boolean(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return false;
  if (!value->is_boolean()) wrongType(key, "true or false");
  return value->get<bool>();
}

std::vector<std::string> texts(const Json& list, const char* key) {
  // Docker's StrSlice takes a lone string for a list of one.
  if (list.is_string()) return {list.get<std::string>()};
  if (!list.is_array()) wrongType(key, "a list");
  std::vector<std::string> result;
  for (const Json& item : list) {
    if (!item.is_string()) wrongType(key, "a list of text");
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::vector<std::string> keys(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (!value) return {};
  if (!value->is_object()) wrongType(key, "an object");
  std::vector<std::string> result;
  for (const auto& item : value->items()) result.push_back(item.key());
  return result;  // nlohmann::json keeps keys sorted
}

}  // namespace hull::image::json
