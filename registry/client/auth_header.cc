// X-Registry-Auth of the Docker API.
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "registry/client/client.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxAuthHeaderBytes = 128 << 10;

std::string field(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return {};
  if (!it->is_string()) {
    throw Error(ErrorKind::kInvalidArgument,
                "parse X-Registry-Auth: " + std::string(key) + " is not text");
  }
  return it->get<std::string>();
}

}  // namespace

Credentials parseAuthHeader(std::string_view header) {
  if (header.empty()) return {};
  const Error bad(ErrorKind::kInvalidArgument,
                  "parse X-Registry-Auth: expected base64url-encoded JSON");
  if (header.size() > kMaxAuthHeaderBytes) throw bad;
  const auto decoded = base64Decode(header);
  // Some clients send the JSON as it is.
  const std::string text = decoded ? *decoded : std::string(header);
  const auto document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_null()) return {};
  if (!document.is_object()) throw bad;
  Credentials credentials{field(document, "username"), field(document, "password"),
                          field(document, "identitytoken")};
  const std::string both = field(document, "auth");  // base64 of user:password
  if (credentials.username.empty() && !both.empty()) {
    const auto plain = base64Decode(both);
    const size_t colon = plain ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos) throw bad;
    credentials.username = plain->substr(0, colon);
    credentials.password = plain->substr(colon + 1);
  }
  return credentials;
}

}  // namespace hull::registry
