// Blobs and their uploads (distribution-spec "Pulling blobs", "Pushing blobs").
#include <algorithm>
#include <charconv>

#include "registry/server/api.h"

namespace hull::registry {

using image::Digest;

namespace {

struct ByteRange {
  uint64_t first = 0;
  uint64_t last = 0;  // inclusive
};

std::optional<uint64_t> parseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One range of "bytes=…" (RFC 9110 §14.1.2). nullopt: to be ignored, the whole is answered.
// Throws ApiError 416 when it lies outside.
std::optional<ByteRange> parseRange(std::string_view header, uint64_t size) {
  if (!header.starts_with("bytes=") || header.find(',') != std::string_view::npos) {
    return std::nullopt;
  }
  header.remove_prefix(6);
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = parseNumber(header.substr(0, dash));
  const auto last = parseNumber(header.substr(dash + 1));
  const bool suffix = dash == 0;
  if (suffix ? !last : !first || (!last && dash + 1 != header.size())) return std::nullopt;
  if (!suffix && last && *last < *first) return std::nullopt;
  const bool outside = suffix ? *last == 0 || size == 0 : *first >= size;
  if (outside) {
    throw ApiError(416, code::kSizeInvalid, "the range is outside of the blob",
                   {{"Content-Range", "bytes */" + std::to_string(size)}});
  }
  if (suffix) return ByteRange{size - std::min(*last, size), size - 1};
  return ByteRange{*first, std::min(last.value_or(size - 1), size - 1)};
}

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

Response Api::blob(const Request& request, const Route& route) {
  const Digest digest = requestedDigest(route.reference);
  if (request.method != "DELETE") return getBlob(request, route, digest);
  if (!store_.removeBlob(route.repository, digest)) {
    throw ApiError(404, code::kBlobUnknown, "blob unknown to registry");
  }
  Response response;
  response.status = 202;
  return response;
}

Response Api::getBlob(const Request& request, const Route& route, const Digest& digest) {
  if (!store_.hasBlob(route.repository, digest)) {
    if (!store_.has(route.repository)) {
      throw ApiError(404, code::kNameUnknown, "repository name not known to registry");
    }
    throw ApiError(404, code::kBlobUnknown, "blob unknown to registry");
  }
  Fd fd = store_.blobs().open(digest);
  const uint64_t size = fileSize(fd.get());
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
    response.file = {std::move(fd), range->first, range->last - range->first + 1};
  } else {
    response.file = {std::move(fd), 0, size};
  }
  return response;
}

Response Api::startUpload(Request& request, const Route& route) {
  const auto mount = route.query.find("mount");
  if (mount != route.query.end()) {
    const Digest digest = requestedDigest(mount->second);
    const auto from = route.query.find("from");
    // Whatever hinders the mount, the client can still upload (202).
    if (from != route.query.end() && isRepositoryName(from->second) &&
        store_.mountBlob(from->second, route.repository, digest)) {
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
    uploads_.append(route.repository, id, 0, *request.body);
  } catch (...) {
    uploads_.cancel(route.repository, id);  // the client never learned the id
    throw;
  }
  uploads_.finish(route.repository, id, digest);
  return createdBlob(route, digest);
}

Response Api::upload(Request& request, const Route& route) {
  if (request.method == "PATCH") return patchUpload(request, route);
  if (request.method == "PUT") return putUpload(request, route);
  if (request.method == "DELETE") {
    uploads_.cancel(route.repository, route.reference);
    Response response;
    response.status = 204;
    return response;
  }
  const uint64_t size = uploads_.size(route.repository, route.reference);
  return uploadResponse(204, route, route.reference, size);
}

Response Api::patchUpload(Request& request, const Route& route) {
  const auto range = parseContentRange(request);
  const uint64_t size =
      uploads_.append(route.repository, route.reference,
                      range ? std::optional(range->first) : std::nullopt, *request.body);
  return uploadResponse(202, route, route.reference, size);
}

Response Api::putUpload(Request& request, const Route& route) {
  const auto wanted = route.query.find("digest");
  if (wanted == route.query.end()) {
    throw ApiError(400, code::kDigestInvalid, "the digest parameter is missing");
  }
  const Digest digest = requestedDigest(wanted->second);
  const auto range = request.content_length == 0 ? std::nullopt : parseContentRange(request);
  uploads_.append(route.repository, route.reference,
                  range ? std::optional(range->first) : std::nullopt, *request.body);
  uploads_.finish(route.repository, route.reference, digest);
  return createdBlob(route, digest);
}

}  // namespace hull::registry
