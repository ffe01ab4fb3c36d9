// Manifests and what lists them: tags, referrers, the catalog.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "registry/server/api.h"
#include "registry/server/manifest_document.h"

namespace hull::registry {

using image::Digest;
using Json = nlohmann::ordered_json;

namespace {

bool isDigestText(std::string_view reference) {
  return reference.find(':') != std::string_view::npos;
}

void checkTag(const std::string& tag) {
  if (!isTag(tag)) throw ApiError(400, code::kManifestInvalid, "invalid tag");
}

Response jsonResponse(const Json& document, const char* type = "application/json") {
  Response response;
  response.headers.emplace_back("Content-Type", type);
  response.body = document.dump(-1, ' ', false, Json::error_handler_t::replace);
  return response;
}

struct Page {
  std::vector<std::string> entries;
  bool more = false;
};

size_t pageSize(const Route& route) {
  const auto n = route.query.find("n");
  if (n == route.query.end()) return kMaxPageEntries;
  size_t value = 0;
  const char* end = n->second.data() + n->second.size();
  const auto [stop, error] = std::from_chars(n->second.data(), end, value);
  if (error == std::errc::result_out_of_range && stop == end) return kMaxPageEntries;
  if (error != std::errc() || stop != end) {
    throw ApiError(400, code::kUnsupported, "n is not a number");
  }
  return std::min(value, kMaxPageEntries);
}

// `all` is sorted; `last` is exclusive and need not be in it.
Page pageOf(std::vector<std::string> all, const Route& route) {
  Page page;
  const size_t limit = pageSize(route);
  auto from = all.begin();
  const auto last = route.query.find("last");
  if (last != route.query.end()) from = std::upper_bound(all.begin(), all.end(), last->second);
  const size_t left = static_cast<size_t>(all.end() - from);
  const size_t count = std::min(left, limit);
  page.entries.assign(from, from + static_cast<std::ptrdiff_t>(count));
  page.more = count > 0 && count < left;
  return page;
}

void addLink(Response& response, std::string target, const std::string& last, size_t limit) {
  addQuery(target, "last", last);
  addQuery(target, "n", std::to_string(limit));
  response.headers.emplace_back("Link", "<" + target + ">; rel=\"next\"");
}

}  // namespace

Response Api::manifest(Request& request, const Route& route) {
  if (request.method == "PUT") return putManifest(request, route);
  if (request.method == "DELETE") return deleteManifest(route);
  return getManifest(request, route);
}

Response Api::getManifest(const Request& request, const Route& route) {
  std::optional<StoredManifest> found;
  if (isDigestText(route.reference)) {
    found = store_.findManifest(route.repository, requestedDigest(route.reference));
  } else if (isTag(route.reference)) {
    found = store_.findTag(route.repository, route.reference);
  }
  if (!found) {
    if (!store_.has(route.repository)) {
      throw ApiError(404, code::kNameUnknown, "repository name not known to registry");
    }
    throw ApiError(404, code::kManifestUnknown, "manifest unknown");
  }
  Response response;
  const std::string tag = "\"" + found->digest.text() + "\"";
  response.headers = {{"Docker-Content-Digest", found->digest.text()}, {"ETag", tag}};
  if (request.header("if-none-match") == tag) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", found->media_type);
  Fd fd = store_.blobs().open(found->digest);
  const uint64_t size = fileSize(fd.get());
  response.file = {std::move(fd), 0, size};
  return response;
}

Response Api::putManifest(Request& request, const Route& route) {
  const bool by_digest = isDigestText(route.reference);
  const Digest wanted = by_digest ? requestedDigest(route.reference) : Digest();
  if (!by_digest) checkTag(route.reference);
  const ApiError too_large(413, code::kSizeInvalid, "the manifest is larger than 4 MiB");
  if (request.content_length.value_or(0) > kMaxServedManifestBytes) throw too_large;
  std::string bytes;
  try {
    bytes = readAll(*request.body, kMaxServedManifestBytes, "manifest");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kTooLarge) throw too_large;
    throw;
  }
  Hasher hasher(by_digest ? wanted.algorithm() : HashAlgorithm::kSha256);
  hasher.update(bytes);
  const std::string algorithm = by_digest ? std::string(wanted.algorithmName()) : "sha256";
  const Digest digest = Digest::parse(algorithm + ":" + hasher.finishHex());
  if (by_digest && digest != wanted) {
    throw ApiError(400, code::kDigestInvalid, "the manifest's digest is " + digest.text());
  }
  NewManifest manifest = readManifest(bytes, digest, request.header("content-type"));
  if (!by_digest) manifest.tag = route.reference;
  if (const auto missing = store_.putManifest(route.repository, manifest)) {
    throw ApiError(404, code::kManifestBlobUnknown, "blob unknown to registry: " + missing->text());
  }
  Response response;
  response.status = 201;
  response.headers = {{"Location", "/v2/" + route.repository + "/manifests/" + digest.text()},
                      {"Docker-Content-Digest", digest.text()}};
  if (!manifest.subject.empty()) {
    response.headers.emplace_back("OCI-Subject", manifest.subject.text());
  }
  return response;
}

Response Api::deleteManifest(const Route& route) {
  bool removed = false;
  if (isDigestText(route.reference)) {
    removed = store_.removeManifest(route.repository, requestedDigest(route.reference));
  } else {
    checkTag(route.reference);
    removed = store_.removeTag(route.repository, route.reference);
  }
  if (!removed) throw ApiError(404, code::kManifestUnknown, "manifest unknown");
  Response response;
  response.status = 202;
  return response;
}

Response Api::tags(const Route& route) {
  if (!store_.has(route.repository)) {
    throw ApiError(404, code::kNameUnknown, "repository name not known to registry");
  }
  const Page page = pageOf(store_.tags(route.repository), route);
  Response response = jsonResponse({{"name", route.repository}, {"tags", page.entries}});
  if (page.more) {
    addLink(response, "/v2/" + route.repository + "/tags/list", page.entries.back(),
            page.entries.size());
  }
  return response;
}

Response Api::catalog(const Route& route) {
  const Page page = pageOf(store_.list(), route);
  Response response = jsonResponse({{"repositories", page.entries}});
  if (page.more) addLink(response, "/v2/_catalog", page.entries.back(), page.entries.size());
  return response;
}

Response Api::referrers(const Route& route) {
  const Digest subject = requestedDigest(route.reference);
  const auto filter = route.query.find("artifactType");
  const auto after = route.query.find("last");
  Json manifests = Json::array();
  std::string last;
  size_t bytes = 0;
  bool more = false;
  for (const std::string& text : store_.referrers(route.repository, subject)) {
    Json descriptor = Json::parse(text);
    const std::string digest = descriptor.at("digest");
    if (after != route.query.end() && digest <= after->second) continue;
    if (filter != route.query.end() && descriptor.value("artifactType", "") != filter->second) {
      continue;
    }
    more = !manifests.empty() && bytes + text.size() > kMaxReferrersPageBytes;
    if (more) break;
    bytes += text.size();
    last = digest;
    manifests.push_back(std::move(descriptor));
  }
  static constexpr const char* kIndex = "application/vnd.oci.image.index.v1+json";
  Response response =
      jsonResponse({{"schemaVersion", 2}, {"mediaType", kIndex}, {"manifests", manifests}}, kIndex);
  if (filter != route.query.end()) {
    response.headers.emplace_back("OCI-Filters-Applied", "artifactType");
  }
  if (more) {
    std::string target = "/v2/" + route.repository + "/referrers/" + subject.text();
    if (filter != route.query.end()) addQuery(target, "artifactType", filter->second);
    addQuery(target, "last", last);
    response.headers.emplace_back("Link", "<" + target + ">; rel=\"next\"");
  }
  return response;
}

}  // namespace hull::registry
