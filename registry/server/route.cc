#include "registry/server/route.h"

#include <algorithm>
#include <vector>

#include "registry/server/message.h"

namespace hull::registry {

namespace {

bool isLowerOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

// [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*
bool isNameComponent(std::string_view text) {
  size_t i = 0;
  while (true) {
    const size_t start = i;
    while (i < text.size() && isLowerOrDigit(text[i])) ++i;
    if (i == start) return false;
    if (i == text.size()) return true;
    const char separator = text[i];
    size_t run = 0;
    while (i < text.size() && text[i] == separator) ++i, ++run;
    if (separator == '.' ? run > 1 : separator == '_' ? run > 2 : separator != '-') return false;
  }
}

bool isUploadId(std::string_view id) {
  return id.size() == kUploadIdDigits && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    path.remove_prefix(slash + 1);
  }
}

[[noreturn]] void noEndpoint() {
  throw ApiError(404, code::kUnsupported, "no such endpoint");
}

// The endpoint that the last segments name; how many they are.
size_t matchTail(const std::vector<std::string_view>& parts, Route& route) {
  const size_t count = parts.size();
  const auto from_end = [&](size_t i) { return i <= count ? parts[count - i] : ""; };
  if (count >= 4 && from_end(3) == "blobs" && from_end(2) == "uploads") {
    route.endpoint = from_end(1).empty() ? Endpoint::kUploads : Endpoint::kUpload;
    route.reference = from_end(1);
    return 3;
  }
  if (count < 3) noEndpoint();
  if (from_end(2) == "blobs" && from_end(1) == "uploads") {
    route.endpoint = Endpoint::kUploads;
    return 2;
  }
  if (from_end(2) == "tags" && from_end(1) == "list") {
    route.endpoint = Endpoint::kTags;
    return 2;
  }
  route.reference = from_end(1);
  if (from_end(2) == "manifests") {
    route.endpoint = Endpoint::kManifest;
  } else if (from_end(2) == "blobs") {
    route.endpoint = Endpoint::kBlob;
  } else if (from_end(2) == "referrers") {
    route.endpoint = Endpoint::kReferrers;
  } else {
    noEndpoint();
  }
  return 2;
}

}  // namespace

bool isRepositoryName(std::string_view name) {
  if (name.empty() || name.size() > kMaxRepositoryNameBytes) return false;
  const auto parts = split(name);
  return std::all_of(parts.begin(), parts.end(), isNameComponent);
}

// [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
bool isTag(std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTagBytes || tag[0] == '.' || tag[0] == '-') return false;
  return std::all_of(tag.begin(), tag.end(), [](char c) {
    return isLowerOrDigit(c) || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' || c == '-';
  });
}

Route parseRoute(std::string_view target) {
  const size_t question = std::min(target.find('?'), target.size());
  const auto path = percentDecode(target.substr(0, question));
  auto query = parseQuery(target.substr(std::min(question + 1, target.size())));
  if (!path || !query) throw ApiError(400, code::kNameInvalid, "bad percent-encoding in the URL");
  Route route;
  route.query = std::move(*query);
  std::string_view rest = *path;
  if (rest == "/v2" || rest == "/v2/") return route;
  if (!rest.starts_with("/v2/")) noEndpoint();
  rest.remove_prefix(4);
  if (rest == "_catalog") {
    route.endpoint = Endpoint::kCatalog;
    return route;
  }
  const auto parts = split(rest);
  const size_t tail = matchTail(parts, route);
  size_t name_bytes = 0;
  for (size_t i = 0; i + tail < parts.size(); ++i) name_bytes += parts[i].size() + (i > 0);
  route.repository = rest.substr(0, name_bytes);
  if (!isRepositoryName(route.repository)) {
    throw ApiError(400, code::kNameInvalid, "invalid repository name");
  }
  if (route.endpoint == Endpoint::kUpload && !isUploadId(route.reference)) {
    throw ApiError(404, code::kBlobUploadUnknown, "no such upload");
  }
  return route;
}

}  // namespace hull::registry
