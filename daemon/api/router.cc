#include "daemon/api/router.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/log.h"
#include "base/log_context.h"
#include "base/random.h"

namespace hull::engine::api {

namespace {

constexpr size_t kRequestIdBytes = 6;

using Segments = std::vector<std::string>;

Segments split(std::string_view path) {
  Segments segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // '/'
    const size_t end = std::min(path.find('/'), path.size());
    segments.emplace_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return segments;
}

bool isMany(std::string_view pattern) {
  return pattern.size() > 2 && pattern.ends_with("*}");
}
bool isOne(std::string_view pattern) {
  return pattern.starts_with('{') && !isMany(pattern);
}

bool matchOne(const std::string& pattern, const std::string& segment, Segments& parameters) {
  if (!isOne(pattern)) return pattern == segment;
  if (segment.empty()) return false;
  parameters.push_back(percentDecode(segment, false));
  return true;
}

bool match(const Segments& pattern, const Segments& path, Segments& parameters) {
  parameters.clear();
  const auto many = std::find_if(pattern.begin(), pattern.end(), isMany);
  if (many == pattern.end()) {
    if (pattern.size() != path.size()) return false;
    for (size_t i = 0; i < pattern.size(); ++i) {
      if (!matchOne(pattern[i], path[i], parameters)) return false;
    }
    return true;
  }
  if (path.size() < pattern.size()) return false;
  const auto before = static_cast<size_t>(many - pattern.begin());
  const size_t after = pattern.size() - before - 1;
  for (size_t i = 0; i < before; ++i) {
    if (!matchOne(pattern[i], path[i], parameters)) return false;
  }
  std::string joined;
  for (size_t i = before; i < path.size() - after; ++i) {
    if (i > before) joined += '/';
    joined += percentDecode(path[i], false);
  }
  if (joined.empty()) return false;
  parameters.push_back(joined);
  for (size_t i = 0; i < after; ++i) {
    if (!matchOne(pattern[before + 1 + i], path[path.size() - after + i], parameters)) return false;
  }
  return true;
}

// "v1.43" → 43.
std::optional<unsigned> versionOf(std::string_view segment) {
  if (!segment.starts_with("v1.") || segment.size() > 6) return std::nullopt;
  segment.remove_prefix(3);
  unsigned minor = 0;
  const auto [end, failed] =
      std::from_chars(segment.data(), segment.data() + segment.size(), minor);
  if (failed != std::errc() || end != segment.data() + segment.size()) return std::nullopt;
  return minor;
}

void checkVersion(unsigned minor) {
  const std::string version = "1." + std::to_string(minor);
  if (minor < kMinApiMinor) {
    throw Error(ErrorKind::kInvalidArgument,
                "client version " + version + " is too old. Minimum supported API version is 1." +
                    std::to_string(kMinApiMinor) +
                    ", please upgrade your client to a newer version");
  }
  if (minor > kMaxApiMinor) {
    throw Error(ErrorKind::kInvalidArgument,
                "client version " + version + " is too new. Maximum supported API version is 1." +
                    std::to_string(kMaxApiMinor));
  }
}

}  // namespace

int httpStatusOf(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidArgument:
      return 400;
    case ErrorKind::kUnauthorized:
      return 401;
    case ErrorKind::kForbidden:
      return 403;
    case ErrorKind::kNotFound:
      return 404;
    case ErrorKind::kConflict:
      return 409;
    case ErrorKind::kTooLarge:
      return 413;
    case ErrorKind::kNotSupported:
      return 501;
    case ErrorKind::kUnavailable:
      return 503;
    case ErrorKind::kTimeout:
      return 504;
    case ErrorKind::kCorrupt:
    case ErrorKind::kNoSpace:
    case ErrorKind::kCancelled:
    case ErrorKind::kInternal:
      break;
  }
  return 500;
}

std::string errorBody(std::string_view message) {
  return nlohmann::json{{"message", message}}.dump(-1, ' ', false,
                                                   nlohmann::json::error_handler_t::replace) +
         "\n";
}

void Router::add(std::string method, std::string_view pattern, Handler handler) {
  routes_.push_back({std::move(method), split(pattern), std::move(handler)});
}

const Router::Route* Router::find(Request& request) const {
  if (!request.path.starts_with('/')) return nullptr;
  Segments path = split(request.path);
  if (!path.empty()) {
    if (const auto minor = versionOf(path.front())) {
      checkVersion(*minor);
      request.api_minor = *minor;
      path.erase(path.begin());
    }
  }
  for (const Route& route : routes_) {
    const bool method_fits =
        route.method == request.method || (route.method == "GET" && request.method == "HEAD");
    if (method_fits && match(route.segments, path, request.path_parameters)) return &route;
  }
  return nullptr;
}

void Router::dispatch(Exchange& exchange) const {
  const auto began = std::chrono::steady_clock::now();
  exchange.request().id = randomHex(kRequestIdBytes);
  const log::RequestScope scope(exchange.request().id);
  answer(exchange);
  const auto took = std::chrono::steady_clock::now() - began;
  if (answered_) answered_(exchange.status(), took);
  log::debug(exchange.request().method + " " + exchange.request().path + ": " +
             std::to_string(exchange.status()) + " after " +
             std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()) +
             " ms");
}

void Router::answer(Exchange& exchange) const {
  const auto fail = [&](int status, std::string_view message) {
    log::debug(exchange.request().method + " " + exchange.request().path + ": " +
               std::to_string(status) + " " + std::string(message));
    if (!exchange.answered()) exchange.json(status, errorBody(message));
  };
  try {
    const Route* route = find(exchange.request());
    if (!route) return fail(404, "page not found");
    route->handler(exchange);
  } catch (const Error& error) {
    fail(httpStatusOf(error.kind()), error.what());
  } catch (const std::exception& error) {
    log::error(exchange.request().method + " " + exchange.request().path + ": " + error.what());
    fail(500, error.what());
  }
}

}  // namespace hull::engine::api
