#include "daemon/api/filters.h"

#include <algorithm>

#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

Filters::Filters(std::string_view text, std::initializer_list<std::string_view> known) {
  const fields::Json object = fields::parseObject(text, "the filters");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Error(ErrorKind::kInvalidArgument, "invalid filter '" + key + "'");
    }
    std::vector<std::string>& list = values_[key];
    if (value.is_object()) {
      for (const auto& [item, wanted] : value.items()) {
        if (!wanted.is_boolean()) fields::wrongType("filters", "true or false for each value");
        if (wanted.get<bool>()) list.push_back(item);
      }
    } else {
      list = fields::texts(object, key.c_str());
    }
    if (list.empty()) values_.erase(key);
  }
}

const std::vector<std::string>& Filters::get(const std::string& key) const {
  static const std::vector<std::string> kNone;
  const auto found = values_.find(key);
  return found == values_.end() ? kNone : found->second;
}

bool Filters::allows(const std::string& key, std::string_view value) const {
  const auto& list = get(key);
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

bool Filters::labelsFit(const std::map<std::string, std::string>& labels) const {
  const auto has = [&](const std::string& wanted) {
    const size_t equals = wanted.find('=');
    const auto found = labels.find(wanted.substr(0, equals));
    return found != labels.end() &&
           (equals == std::string::npos || found->second == wanted.substr(equals + 1));
  };
  const auto& wanted = get("label");
  const auto& unwanted = get("label!");
  return std::all_of(wanted.begin(), wanted.end(), has) &&
         std::none_of(unwanted.begin(), unwanted.end(), has);
}

bool Filters::flag(const std::string& key, bool otherwise) const {
  const auto& list = get(key);
  if (list.empty()) return otherwise;
  const std::string& value = list.front();
  if (value == "1" || value == "true" || value == "True") return true;
  if (value == "0" || value == "false" || value == "False") return false;
  throw Error(ErrorKind::kInvalidArgument, "invalid filter '" + key + "=" + value + "'");
}

}  // namespace hull::engine::api
