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

void Api::authorize(const Call& call) const {
  const AccessControl& access = call.policy->access;
  const std::string& repository = call.route.repository;
  Action action = Action::kPull;
  bool allowed = false;
  switch (call.route.endpoint) {
    case Endpoint::kBase:
      allowed = access.allowsBase(call.principal);
      break;
    case Endpoint::kCatalog:
      allowed = access.allowsCatalog(call.principal);
      break;
    default: {
      const std::string& method = call.request.method;
      const bool upload = call.route.endpoint == Endpoint::kUpload;
      if (method == "DELETE" && !upload) {
        action = Action::kDelete;
      } else if (upload || (method != "GET" && method != "HEAD")) {
        action = Action::kPush;
      }
      allowed = call.allows(repository, action);
    }
  }
  if (!allowed) throw access.refusal(call.request, call.principal, repository, action);
}

void Api::checkMethod(const Call& call) const {
  const std::string_view method = call.request.method;
  const Policy& policy = call.policy->settings;
  const char* allowed = methodsOf(call.route.endpoint);
  if (!contains(allowed, method)) {
    throw ApiError(405, code::kUnsupported, "method not allowed", {{"Allow", allowed}});
  }
  const bool reads = method == "GET" || method == "HEAD";
  if (policy.read_only && !reads) {
    throw ApiError(405, code::kUnsupported, "the registry is read-only", {{"Allow", "GET, HEAD"}});
  }
  if (cache_ && !reads) {
    throw ApiError(405, code::kUnsupported,
                   "this registry is a cache of " + cache_->upstream() + ": push there",
                   {{"Allow", "GET, HEAD"}});
  }
  const bool deletes = method == "DELETE" && call.route.endpoint != Endpoint::kUpload;
  if (deletes && !policy.allow_delete) {
    throw ApiError(405, code::kUnsupported, "deleting is disabled", {{"Allow", "GET, HEAD"}});
  }
}

Response Api::dispatch(Request& request) {
  auto policy = policy_.get();
  if (!rate_.admits(request.peer, policy->settings.requests_per_second)) {
    throw ApiError(429, code::kTooManyRequests, "too many requests from this address",
                   {{"Retry-After", "1"}});
  }
  const std::string_view path =
      std::string_view(request.target).substr(0, request.target.find('?'));
  if (path == "/token" && policy->access.givesTokens()) {
    if (request.method == "GET" || request.method == "POST") {
      return policy->access.giveToken(request);
    }
    throw ApiError(405, code::kUnsupported, "method not allowed", {{"Allow", "GET, POST"}});
  }
  if (path == "/healthz") {
    Response response;
    response.headers.emplace_back("Content-Type", "text/plain");
    response.body = "ok\n";
    return response;
  }
  Principal principal = policy->access.authenticate(request);
  request.user = principal.name;
  Call call{request, parseRoute(request.target), std::move(principal), std::move(policy)};
  authorize(call);
  checkMethod(call);
  return answer(call);
}

Response Api::answer(Call& call) {
  switch (call.route.endpoint) {
    case Endpoint::kBase: {
      Response response;
      response.headers.emplace_back("Content-Type", "application/json");
      response.body = "{}";
      return response;
    }
    case Endpoint::kCatalog:
      return catalog(call);
    case Endpoint::kTags:
      return tags(call);
    case Endpoint::kManifest:
      return manifest(call);
    case Endpoint::kBlob:
      return blob(call);
    case Endpoint::kUploads:
      return startUpload(call);
    case Endpoint::kUpload:
      return upload(call);
    case Endpoint::kReferrers:
      return referrers(call);
  }
  throw ApiError(404, code::kUnsupported, "no such endpoint");
}

}  // namespace hull::registry
