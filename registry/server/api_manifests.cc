// Manifests and what lists them: tags, referrers, the catalog.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/stream.h"
#include "registry/server/api.h"
#include "registry/server/manifest_document.h"
#include "registry/server/pattern.h"

namespace hull::registry {

using image::Digest;
using Json = nlohmann::ordered_json;

namespace {

constexpr size_t kMaxInlinedManifestBytes = 64 << 10;

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

// Whether the manifest `from`, or one that it lists, is or needs `to`; `seen` are known not to.
bool leadsTo(const RepositoryStore& store, const std::string& repository, const Digest& from,
             const Digest& to, std::set<Digest>& seen) {
  std::vector<Digest> open = {from};
  while (!open.empty()) {
    const Digest at = open.back();
    open.pop_back();
    if (at == to) return true;
    if (!seen.insert(at).second) continue;
    const auto stored = store.findManifest(repository, at);
    if (!stored) continue;
    const std::string bytes = store.blobs().read(at, kMaxServedManifestBytes);
    const NewManifest manifest = readManifest(bytes, at, stored->media_type);
    if (std::ranges::find(manifest.needed_blobs, to) != manifest.needed_blobs.end()) return true;
    open.insert(open.end(), manifest.needed_manifests.begin(), manifest.needed_manifests.end());
  }
  return false;
}

}  // namespace

Response Api::manifest(Call& call) {
  if (call.request.method == "PUT") return putManifest(call);
  if (call.request.method == "DELETE") return deleteManifest(call);
  return getManifest(call);
}

std::optional<StoredManifest> Api::findManifest(Call& call) {
  const std::string& repository = call.route.repository;
  const std::string& reference = call.route.reference;
  const bool by_digest = isDigestText(reference);
  if (by_digest) requestedDigest(reference);
  if (!by_digest && !isTag(reference)) return std::nullopt;
  if (cache_) cache_->refresh(repository, reference);
  return by_digest ? store_.findManifest(repository, Digest::parse(reference))
                   : store_.findTag(repository, reference);
}

Response Api::getManifest(Call& call) {
  const auto found = findManifest(call);
  if (!found) {
    if (!store_.has(call.route.repository)) {
      throw ApiError(404, code::kNameUnknown, "repository name not known to registry");
    }
    throw ApiError(404, code::kManifestUnknown, "manifest unknown");
  }
  Response response;
  const std::string tag = "\"" + found->digest.text() + "\"";
  response.headers = {{"Docker-Content-Digest", found->digest.text()}, {"ETag", tag}};
  if (call.request.header("if-none-match") == tag) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", found->media_type);
  Fd fd = store_.blobs().open(found->digest);
  const uint64_t size = fileSize(fd.get());
  if (size <= kMaxInlinedManifestBytes) {  // head and body in one packet
    response.body.resize(static_cast<size_t>(size));
    preadFull(fd.get(), std::as_writable_bytes(std::span(response.body)), 0);
  } else {
    response.file = {std::move(fd), 0, size};
  }
  return response;
}

// A tag that may not change keeps its manifest; putting the same again is no change.
void Api::refuseImmutable(const Call& call, const std::string& tag, const Digest& next) const {
  const std::string& repository = call.route.repository;
  if (!matchesTag(call.policy->settings.immutable_tags, repository, tag)) return;
  const auto present = store_.findTag(repository, tag);
  if (present && present->digest != next) {
    throw ApiError(403, code::kDenied, "tag " + tag + " of " + repository + " is immutable");
  }
}

void Api::refuseNeeded(const Call& call, const Digest& digest) const {
  const std::string& repository = call.route.repository;
  const auto& patterns = call.policy->settings.immutable_tags;
  if (patterns.empty()) return;
  std::set<Digest> seen;
  for (const std::string& tag : store_.tags(repository)) {
    if (!matchesTag(patterns, repository, tag)) continue;
    const auto found = store_.findTag(repository, tag);
    if (!found || !leadsTo(store_, repository, found->digest, digest, seen)) continue;
    throw ApiError(403, code::kDenied,
                   "tag " + tag + " of " + repository + " is immutable and needs " + digest.text());
  }
}

void Api::publish(const Call& call, const char* action, const StoredManifest& manifest,
                  uint64_t size) {
  if (!webhooks_ || call.policy->settings.webhooks.empty()) return;
  Event event;
  event.action = action;
  event.repository = call.route.repository;
  if (!isDigestText(call.route.reference)) event.tag = call.route.reference;
  event.digest = manifest.digest.text();
  event.media_type = manifest.media_type;
  event.size = size;
  event.actor = call.principal.name;
  event.address = call.request.peer;
  event.host = std::string(call.request.header("host"));
  event.method = call.request.method;
  event.user_agent = std::string(call.request.header("user-agent"));
  webhooks_->publish(call.policy->settings.webhooks, event);
}

Response Api::putManifest(Call& call) {
  Request& request = call.request;
  const Route& route = call.route;
  const bool by_digest = isDigestText(route.reference);
  // The digest of a tagged manifest may be named beside it, so that it can be a sha512.
  const auto named = route.query.find("digest");
  const bool checked = by_digest || named != route.query.end();
  const Digest wanted =
      checked ? requestedDigest(by_digest ? route.reference : named->second) : Digest();
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
  Hasher hasher(checked ? wanted.algorithm() : HashAlgorithm::kSha256);
  hasher.update(bytes);
  const std::string algorithm = checked ? std::string(wanted.algorithmName()) : "sha256";
  const Digest digest = Digest::parse(algorithm + ":" + hasher.finishHex());
  if (checked && digest != wanted) {
    throw ApiError(400, code::kDigestInvalid, "the manifest's digest is " + digest.text());
  }
  NewManifest manifest = readManifest(bytes, digest, request.header("content-type"));
  if (!by_digest) {
    manifest.tag = route.reference;
    refuseImmutable(call, manifest.tag, digest);
  }
  if (bytes.size() > quotaLeft(call)) {
    throw quotaUsedUp(route.repository);
  }
  if (const auto missing = store_.putManifest(route.repository, manifest)) {
    throw ApiError(404, code::kManifestBlobUnknown, "blob unknown to registry: " + missing->text());
  }
  publish(call, "push", {digest, manifest.media_type}, bytes.size());
  Response response;
  response.status = 201;
  response.headers = {{"Location", "/v2/" + route.repository + "/manifests/" + digest.text()},
                      {"Docker-Content-Digest", digest.text()}};
  if (!manifest.subject.empty()) {
    response.headers.emplace_back("OCI-Subject", manifest.subject.text());
  }
  return response;
}

Response Api::deleteManifest(Call& call) {
  const std::string& repository = call.route.repository;
  const std::string& reference = call.route.reference;
  StoredManifest gone;
  bool removed = false;
  if (isDigestText(reference)) {
    gone.digest = requestedDigest(reference);
    refuseNeeded(call, gone.digest);
    removed = store_.removeManifest(repository, gone.digest);
  } else {
    checkTag(reference);
    refuseImmutable(call, reference, {});
    gone = store_.findTag(repository, reference).value_or(StoredManifest{});
    removed = store_.removeTag(repository, reference);
  }
  if (!removed) throw ApiError(404, code::kManifestUnknown, "manifest unknown");
  publish(call, "delete", gone, 0);
  Response response;
  response.status = 202;
  return response;
}

Response Api::tags(Call& call) {
  const Route& route = call.route;
  if (cache_) {
    if (auto proxied = cache_->forward(call.request.target, route.repository))
      return std::move(*proxied);
  }
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

Response Api::catalog(Call& call) {
  auto repositories = store_.list();
  // Whoever may see the catalog still sees only what he may pull; a token was asked for all of it.
  if (!call.principal.grants) {
    std::erase_if(repositories,
                  [&](const std::string& name) { return !call.allows(name, Action::kPull); });
  }
  const Page page = pageOf(std::move(repositories), call.route);
  Response response = jsonResponse({{"repositories", page.entries}});
  if (page.more) addLink(response, "/v2/_catalog", page.entries.back(), page.entries.size());
  return response;
}

Response Api::referrers(Call& call) {
  const Route& route = call.route;
  const Digest subject = requestedDigest(route.reference);
  if (cache_) {
    if (auto proxied = cache_->forward(call.request.target, route.repository))
      return std::move(*proxied);
  }
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
