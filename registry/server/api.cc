#include "registry/server/api.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"

namespace hull::registry {

using image::Digest;

namespace {

int statusOf(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kNoSpace:
      return 507;
    case ErrorKind::kTimeout:
      return 408;
    case ErrorKind::kTooLarge:
      return 413;
    default:
      return 500;
  }
}

const char* methodsOf(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kBase:
    case Endpoint::kCatalog:
    case Endpoint::kTags:
    case Endpoint::kReferrers:
      return "GET, HEAD";
    case Endpoint::kManifest:
      return "GET, HEAD, PUT, DELETE";
    case Endpoint::kBlob:
      return "GET, HEAD, DELETE";
    case Endpoint::kUploads:
      return "POST";
    case Endpoint::kUpload:
      return "GET, HEAD, PATCH, PUT, DELETE";
  }
  return "";
}

bool contains(std::string_view list, std::string_view method) {
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find(", "));
    if (item == method) return true;
    list.remove_prefix(std::min(item.size() + 2, list.size()));
  }
  return false;
}

}  // namespace

Digest requestedDigest(std::string_view text) {
  try {
    return Digest::parse(text);
  } catch (const Error& error) {
    throw ApiError(400, code::kDigestInvalid, error.what());
  }
}

Response errorResponse(int status, const char* error_code, const std::string& message,
                       HeaderList headers) {
  using Json = nlohmann::ordered_json;
  const Json document = {{"errors", Json::array({{{"code", error_code}, {"message", message}}})}};
  Response response;
  response.status = status;
  response.headers = std::move(headers);
  response.headers.emplace_back("Content-Type", "application/json");
  // Invalid UTF-8 of the request is replaced, not thrown about.
  response.body = document.dump(-1, ' ', false, Json::error_handler_t::replace);
  return response;
}

Response Api::handle(Request& request) {
  try {
    return dispatch(request);
  } catch (const ApiError& error) {
    return errorResponse(error.status(), error.code(), error.what(), error.headers());
  } catch (const Error& error) {
    log::error(request.method + " " + request.target + ": " + error.what());
    // Paths of the server stay in its log.
    return errorResponse(statusOf(error.kind()), code::kUnknown,
                         std::string(toString(error.kind())));
  } catch (const std::exception& error) {
    log::error(request.method + " " + request.target + ": " + error.what());
    return errorResponse(500, code::kUnknown, "internal");
  }
}

void Api::authorize(const Request& request) const {
  if (!passwords_ || passwords_->accepts(request.header("authorization"))) return;
  throw ApiError(401, code::kUnauthorized, "authentication required",
                 {{"WWW-Authenticate", "Basic realm=\"hull-registry\""}});
}

void Api::checkMethod(const Request& request, const Route& route) const {
  const std::string_view method = request.method;
  const char* allowed = methodsOf(route.endpoint);
  if (!contains(allowed, method)) {
    throw ApiError(405, code::kUnsupported, "method not allowed", {{"Allow", allowed}});
  }
  const bool reads = method == "GET" || method == "HEAD";
  if (options_.read_only && !reads) {
    throw ApiError(405, code::kUnsupported, "the registry is read-only", {{"Allow", "GET, HEAD"}});
  }
  const bool deletes = method == "DELETE" && route.endpoint != Endpoint::kUpload;
  if (deletes && !options_.allow_delete) {
    throw ApiError(405, code::kUnsupported, "deleting is disabled", {{"Allow", "GET, HEAD"}});
  }
}

Response Api::dispatch(Request& request) {
  authorize(request);
  const Route route = parseRoute(request.target);
  checkMethod(request, route);
  switch (route.endpoint) {
    case Endpoint::kBase: {
      Response response;
      response.headers.emplace_back("Content-Type", "application/json");
      response.body = "{}";
      return response;
    }
    case Endpoint::kCatalog:
      return catalog(route);
    case Endpoint::kTags:
      return tags(route);
    case Endpoint::kManifest:
      return manifest(request, route);
    case Endpoint::kBlob:
      return blob(request, route);
    case Endpoint::kUploads:
      return startUpload(request, route);
    case Endpoint::kUpload:
      return upload(request, route);
    case Endpoint::kReferrers:
      return referrers(route);
  }
  throw ApiError(404, code::kUnsupported, "no such endpoint");
}

}  // namespace hull::registry
