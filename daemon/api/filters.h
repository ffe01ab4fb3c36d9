// The `filters` parameter of list, prune and events calls: {"key":["value"]} or
// {"key":{"value":true}}. Pure values, parsed from untrusted text.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hull::engine::api {

class Filters {
 public:
  Filters() = default;
  // Throws kInvalidArgument on malformed text and on a key that is not in `known`.
  Filters(std::string_view text, std::initializer_list<std::string_view> known);

  bool has(const std::string& key) const { return values_.contains(key); }
  const std::vector<std::string>& get(const std::string& key) const;
  // True when the key is absent or one of its values equals `value`.
  bool allows(const std::string& key, std::string_view value) const;
  // "label": every one given must be there ("name" or "name=value"); "label!": none may.
  bool labelsFit(const std::map<std::string, std::string>& labels) const;
  bool flag(const std::string& key, bool otherwise) const;  // throws on anything but a boolean

 private:
  std::map<std::string, std::vector<std::string>> values_;
};

}  // namespace hull::engine::api
