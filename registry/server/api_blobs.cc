// Blobs and their uploads (distribution-spec "Pulling blobs", "Pushing blobs").
#include <algorithm>

#include "base/error.h"
#include "registry/server/api.h"
#include "registry/server/pattern.h"
#include "registry/server/range.h"

namespace hull::registry {

using image::Digest;

namespace {

// "<first>-<last>" of an upload's chunk: no "bytes".
std::optional<ByteRange> parseContentRange(const Request& request) {
  const std::string_view header = request.header("content-range");
  if (header.empty()) return std::nullopt;
  const size_t dash = std::min(header.find('-'), header.size());
  const auto first = parseNumber(header.substr(0, dash));
  const auto last = parseNumber(header.substr(std::min(dash + 1, header.size())));
  if (!first || !last || *last < *first || *last == UINT64_MAX) {
    throw ApiError(400, code::kBlobUploadInvalid, "Content-Range is not <first>-<last>");
  }
  if (request.content_length && *request.content_length != *last - *first + 1) {
    throw ApiError(400, code::kSizeInvalid, "Content-Range and Content-Length disagree");
  }
  return ByteRange{*first, *last};
}

std::string uploadUrl(const Route& route, const std::string& id) {
  return "/v2/" + route.repository + "/blobs/uploads/" + id;
}

std::string receivedRange(uint64_t size) {
  return "0-" + std::to_string(size > 0 ? size - 1 : 0);
}

Response uploadResponse(int status, const Route& route, const std::string& id, uint64_t size) {
  Response response;
  response.status = status;
  response.headers = {{"Location", uploadUrl(route, id)},
                      {"Range", receivedRange(size)},
                      {"Docker-Upload-UUID", id}};
  return response;
}

Response createdBlob(const Route& route, const Digest& digest) {
  Response response;
  response.status = 201;
  response.headers = {{"Location", "/v2/" + route.repository + "/blobs/" + digest.text()},
                      {"Docker-Content-Digest", digest.text()}};
  return response;
}

HashAlgorithm algorithmOf(const Route& route) {
  const auto it = route.query.find("digest-algorithm");
  if (it == route.query.end() || it->second == "sha256") return HashAlgorithm::kSha256;
  if (it->second == "sha512") return HashAlgorithm::kSha512;
  throw ApiError(400, code::kDigestInvalid, "unknown digest algorithm");
}

}  // namespace

ApiError quotaUsedUp(const std::string& repository) {
  return {403, code::kDenied, "the quota of " + repository + " is used up"};
}

Response Api::blob(Call& call) {
  const Digest digest = requestedDigest(call.route.reference);
  if (call.request.method != "DELETE") return getBlob(call, digest);
  refuseNeeded(call, digest);
  if (!store_.removeBlob(call.route.repository, digest)) {
    throw ApiError(404, code::kBlobUnknown, "blob unknown to registry");
  }
  Response response;
  response.status = 202;
  return response;
}

Response Api::getBlob(Call& call, const Digest& digest) {
  const Request& request = call.request;
  const std::string& repository = call.route.repository;
  const bool asked = request.method == "HEAD";  // before a push: what is answered must stay true
  const bool here = asked && !call.policy->settings.read_only
                        ? store_.confirmBlob(repository, digest)
                        : store_.hasBlob(repository, digest);
  std::unique_ptr<PullThrough::Fetched> fetched;
  if (!here && cache_) fetched = cache_->fetchBlob(repository, digest);
  if (!here && !fetched) {
    if (!store_.has(repository)) {
      throw ApiError(404, code::kNameUnknown, "repository name not known to registry");
    }
    throw ApiError(404, code::kBlobUnknown, "blob unknown to registry");
  }
  Fd fd = fetched ? Fd() : store_.blobs().open(digest);
  const uint64_t size = fetched ? fetched->size() : fileSize(fd.get());
  const std::string tag = "\"" + digest.text() + "\"";
  Response response;
  response.headers = {{"Docker-Content-Digest", digest.text()},
                      {"ETag", tag},
                      {"Accept-Ranges", "bytes"},
                      {"Cache-Control", "max-age=31536000, immutable"}};
  if (request.header("if-none-match") == tag) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", "application/octet-stream");
  const std::string_view if_range = request.header("if-range");
  const auto range = if_range.empty() || if_range == tag ? parseRange(request.header("range"), size)
                                                         : std::nullopt;
  if (range) {
    response.status = 206;
    response.headers.emplace_back("Content-Range", "bytes " + std::to_string(range->first) + "-" +
                                                       std::to_string(range->last) + "/" +
                                                       std::to_string(size));
  }
  const uint64_t first = range ? range->first : 0;
  const uint64_t length = range ? range->last - range->first + 1 : size;
  if (fetched) {
    response.stream = fetched->read(first);
    response.stream_length = length;
  } else {
    response.file = {std::move(fd), first, length};
  }
  return response;
}

uint64_t Api::quotaLeft(const Call& call) const {
  uint64_t left = UINT64_MAX;
  for (const QuotaRule& rule : call.policy->settings.quotas) {
    if (!matchesPattern(rule.repository, call.route.repository)) continue;
    const uint64_t used = store_.bytesOf(rule.repository);
    left = std::min(left, rule.bytes - std::min(rule.bytes, used));
  }
  return left;
}

uint64_t Api::append(Call& call, const std::string& id, std::optional<uint64_t> offset) {
  const std::string& repository = call.route.repository;
  const uint64_t largest = call.policy->settings.max_blob_bytes;
  const uint64_t quota = quotaLeft(call);
  const uint64_t limit = std::min(largest, quota);
  const uint64_t size = uploads_.size(repository, id);
  const uint64_t more = call.request.content_length.value_or(0);
  try {
    if (size > limit || more > limit - size) {  // without receiving it
      uploads_.cancel(repository, id);
      throw Error(ErrorKind::kTooLarge, "the upload is larger than allowed");
    }
    return uploads_.append(repository, id, {offset, limit}, *call.request.body);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kTooLarge) throw;
    if (quota < largest) throw quotaUsedUp(repository);
    throw ApiError(413, code::kSizeInvalid,
                   "a blob may have at most " + std::to_string(largest) + " bytes");
  }
}

bool Api::mount(const Call& call, const std::string& from, const Digest& digest) {
  const std::string& repository = call.route.repository;
  if (!isRepositoryName(from) || !call.allows(from, Action::kPull)) return false;
  if (!store_.hasBlob(from, digest)) return false;
  if (!store_.hasBlob(repository, digest) && store_.blobs().size(digest) > quotaLeft(call)) {
    throw quotaUsedUp(repository);  // an upload of it would not fit either
  }
  return store_.mountBlob(from, repository, digest);
}

Response Api::startUpload(Call& call) {
  const Route& route = call.route;
  const auto mounted = route.query.find("mount");
  if (mounted != route.query.end()) {
    const Digest digest = requestedDigest(mounted->second);
    const auto from = route.query.find("from");
    // Whatever else hinders the mount, the client can still upload (202).
    if (from != route.query.end() && mount(call, from->second, digest)) {
      return createdBlob(route, digest);
    }
  }
  const auto wanted = route.query.find("digest");
  if (wanted == route.query.end()) {
    const std::string id = uploads_.start(route.repository, algorithmOf(route));
    return uploadResponse(202, route, id, 0);
  }
  const Digest digest = requestedDigest(wanted->second);
  const std::string id = uploads_.start(route.repository, digest.algorithm());
  try {
    append(call, id, 0);
  } catch (...) {
    uploads_.forget(id);  // the client never learned it
    throw;
  }
  uploads_.finish(route.repository, id, digest);
  return createdBlob(route, digest);
}

Response Api::upload(Call& call) {
  const std::string& method = call.request.method;
  const Route& route = call.route;
  if (method == "PATCH") return patchUpload(call);
  if (method == "PUT") return putUpload(call);
  if (method == "DELETE") {
    uploads_.cancel(route.repository, route.reference);
    Response response;
    response.status = 204;
    return response;
  }
  return uploadResponse(204, route, route.reference,
                        uploads_.size(route.repository, route.reference));
}

Response Api::patchUpload(Call& call) {
  const auto range = parseContentRange(call.request);
  const uint64_t size =
      append(call, call.route.reference, range ? std::optional(range->first) : std::nullopt);
  return uploadResponse(202, call.route, call.route.reference, size);
}

Response Api::putUpload(Call& call) {
  const Route& route = call.route;
  const auto wanted = route.query.find("digest");
  if (wanted == route.query.end()) {
    throw ApiError(400, code::kDigestInvalid, "the digest parameter is missing");
  }
  const Digest digest = requestedDigest(wanted->second);
  const auto range =
      call.request.content_length == 0 ? std::nullopt : parseContentRange(call.request);
  append(call, route.reference, range ? std::optional(range->first) : std::nullopt);
  uploads_.finish(route.repository, route.reference, digest);
  return createdBlob(route, digest);
}

}  // namespace hull::registry
