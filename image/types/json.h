// Typed access to untrusted JSON: each getter names the field it did not like, absent and null are
// the same (Go writes empty lists as null). For the .cc files of image/types and image/archive.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace hull::image::json {

using Json = nlohmann::json;

// Throws kTooLarge beyond `limit`, kCorrupt when it is no JSON object (or array, where allowed);
// `what` names the document.
Json parseDocument(std::string_view text, size_t limit, std::string_view what);

const Json* find(const Json& object, const char* key);  // nullptr when absent or null
std::string text(const Json& object, const char* key);  // "" when absent
uint64_t size(const Json& object, const char* key);     // 0 when absent; never negative
int64_t integer(const Json& object, const char* key);
bool boolean(const Json& object, const char* key);
std::vector<std::string> texts(const Json& list, const char* key);  // list: the value itself
std::vector<std::string> keys(const Json& object, const char* key);

[[noreturn]] void wrongType(const char* key, const char* expected);

}  // namespace hull::image::json
