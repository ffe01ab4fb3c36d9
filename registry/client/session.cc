#include "registry/client/session.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/base64.h"
#include "base/random.h"
#include "registry/client/trust.h"

namespace hull::registry {

using Json = nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kFirstPause{200};
constexpr std::chrono::milliseconds kSleepStep{100};
constexpr std::chrono::seconds kMinTokenLifetime{60};  // docs.docker.com/registry/spec/auth/token
constexpr std::chrono::seconds kMaxTokenLifetime{24 * 3600};
constexpr std::chrono::seconds kRenewBefore{5};
constexpr size_t kMaxErrorTextBytes = 512;
constexpr const char* kClientId = "hull";

bool isRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool mayTryAgain(int status) {
  return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

// "localhost:5000" → loopback?
bool isLoopbackRegistry(const std::string& registry) {
  try {
    return isLoopbackHost(Url::parse("http://" + registry).host);
  } catch (const Error&) {
    return false;
  }
}

std::string hostOf(const std::string& registry) {
  return registry == "docker.io" || registry == "index.docker.io" ? "registry-1.docker.io"
                                                                  : registry;
}

// Bytes that can be part of a header and of nothing else.
bool isPlainToken(std::string_view text) {
  return !text.empty() && text.size() <= kMaxTokenBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

std::string clean(std::string_view text) {
  std::string result;
  for (const char c : text.substr(0, kMaxErrorTextBytes)) {
    result.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
  }
  return result;
}

std::string basic(const Credentials& credentials) {
  return "Basic " + base64Encode(credentials.username + ":" + credentials.password);
}

std::string stringOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

RegistryError parseError(std::string_view body, int status) {
  RegistryError error;
  const Json document = Json::parse(body.begin(), body.end(), nullptr, false);
  if (document.is_object() && document.contains("errors") && document["errors"].is_array() &&
      !document["errors"].empty() && document["errors"][0].is_object()) {
    const Json& first = document["errors"][0];
    error.code = clean(stringOf(first, "code"));
    std::string words = error.code;
    std::transform(words.begin(), words.end(), words.begin(), [](char c) {
      return c == '_' ? ' ' : c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    });
    error.text = words + ": " + clean(stringOf(first, "message"));
  } else if (document.is_object()) {
    error.text = clean(stringOf(document, "details") + stringOf(document, "message"));
  }
  if (error.text.empty()) error.text = "status " + std::to_string(status);
  return error;
}

RegistryError readError(Transfer& answer) {
  std::string body;
  try {
    body = answer.text(kMaxErrorBytes, "error");
  } catch (const TransferError&) {  // the status says enough
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
  }
  return parseError(body, answer.head().status);
}

Error unexpected(Transfer& answer, const std::string& doing) {
  const int status = answer.head().status;
  ErrorKind kind = ErrorKind::kUnavailable;
  if (status == 401) kind = ErrorKind::kUnauthorized;
  if (status == 403) kind = ErrorKind::kForbidden;
  if (status == 404) kind = ErrorKind::kNotFound;
  if (status == 405) kind = ErrorKind::kNotSupported;
  if (status == 413) kind = ErrorKind::kTooLarge;
  if (status == 507) kind = ErrorKind::kNoSpace;
  const RegistryError error = readError(answer);
  const bool bare = error.text.starts_with("status ");
  return Error(kind, doing + ": the registry answered " + std::to_string(status) +
                         (bare ? std::string() : " (" + error.text + ")"));
}

Session::Session(const std::string& registry, std::vector<std::string> scopes,
                 const Credentials& credentials, const ClientOptions& options)
    : registry_(registry),
      scopes_(std::move(scopes)),
      credentials_(credentials),
      options_(options) {}

// Is there a registry at `base`? Throws when nobody can be reached at all.
bool Session::answers(const Url& base) const {
  Url url = base;
  url.target = "/v2/";
  try {
    Transfer answer({.method = "GET", .url = url, .headers = {}, .body = {}, .sent = {}}, options_,
                    &connections_);
    // A TLS server tells those who speak plain HTTP with 400.
    return answer.head().status != 400;
  } catch (const TransferError& error) {
    if (!error.retryable() || error.kind() == ErrorKind::kTimeout) throw;
    return false;
  }
}

const Url& Session::base() {
  const std::lock_guard lock(base_mutex_);
  if (base_) return *base_;
  const std::string host = hostOf(registry_);
  const bool may_be_plain =
      isLoopbackRegistry(registry_) || isInsecure(options_, Url::parse("http://" + host));
  // Nothing secret is sent before this is decided.
  const bool plain = may_be_plain && answers(Url::parse("http://" + host));
  base_ = Url::parse((plain ? "http://" : "https://") + host);
  return *base_;
}

void Session::pause(int attempt, const std::string& retry_after) const {
  auto wait = kFirstPause * (1 << std::min(attempt, 10));
  wait += wait * static_cast<int>(randomHex(1)[0] % 8) / 16;  // not all clients at once
  int seconds = 0;
  const char* end = retry_after.data() + retry_after.size();
  if (const auto [stop, error] = std::from_chars(retry_after.data(), end, seconds);
      error == std::errc() && stop == end && seconds >= 0) {
    wait = std::max<std::chrono::milliseconds>(
        wait, std::min(std::chrono::seconds(seconds), kMaxRetryAfter));
  }
  const auto until = std::chrono::steady_clock::now() + wait;
  while (std::chrono::steady_clock::now() < until) {
    if (options_.cancelled && options_.cancelled()) {
      throw Error(ErrorKind::kCancelled, "cancelled");
    }
    std::this_thread::sleep_for(std::min(wait, kSleepStep));
  }
}

std::unique_ptr<Transfer> Session::send(const Call& call) {
  bool authenticated = false;
  for (int attempt = 0;; ++attempt) {
    const bool last = !call.retry || attempt + 1 >= kMaxAttempts;
    std::string retry_after;
    try {
      const std::string used = authorization();
      auto answer = follow(call, used);
      const int status = answer->head().status;
      if (status == 401 && !authenticated && answer->url().sameOrigin(base())) {
        authenticated = true;
        if (!authenticate(*answer, used)) return answer;
        --attempt;  // this was no failure
        continue;
      }
      if (last || !mayTryAgain(status)) return answer;
      retry_after = answer->head().header("retry-after");
    } catch (const TransferError& error) {
      if (last || !error.retryable()) throw;
    }
    pause(attempt, retry_after);
  }
}

// Redirects are ours to follow: credentials stay with the origin they are for, and nothing leaves
// an encrypted connection for a plain one.
std::unique_ptr<Transfer> Session::follow(const Call& call, const std::string& authorization) {
  Url url = base();
  if (call.url) {
    url = *call.url;
  } else {
    url.target = call.target;
  }
  for (int hop = 0;; ++hop) {
    TransferRequest request{call.method,     url,      call.headers, call.body, call.file,
                            call.file_bytes, call.sent};
    if (!authorization.empty() && url.sameOrigin(base())) {
      request.headers.push_back("Authorization: " + authorization);
    }
    auto answer = std::make_unique<Transfer>(std::move(request), options_, &connections_);
    const int status = answer->head().status;
    const bool reads = call.method == "GET" || call.method == "HEAD";
    if (!isRedirect(status) || (!reads && status < 307)) return answer;
    if (hop == kMaxRedirects) {
      throw Error(ErrorKind::kUnavailable, "follow redirects of " + registry_ + ": too many");
    }
    url = location(*answer);
  }
}

Url Session::location(const Transfer& answer) const {
  const std::string text = answer.head().header("location");
  if (text.empty()) {
    throw Error(ErrorKind::kUnavailable, "the registry answered without a Location");
  }
  Url url = answer.url().resolve(text);
  if (answer.url().scheme == "https" && url.scheme == "http") {
    throw Error(ErrorKind::kForbidden,
                "follow " + registry_ + " to " + url.authority() + ": from https to plain http");
  }
  return url;
}

std::string Session::authorization() {
  const std::lock_guard lock(mutex_);
  if (challenge_ && challenge_->scheme == "bearer" &&
      std::chrono::steady_clock::now() > expires_ - kRenewBefore) {
    renew();
  }
  return authorization_;
}

bool Session::authenticate(const Transfer& answer, const std::string& used) {
  std::vector<Challenge> challenges;
  for (const std::string& header : answer.head().all("www-authenticate")) {
    for (Challenge& challenge : parseChallenges(header)) challenges.push_back(std::move(challenge));
  }
  const auto find = [&](const char* scheme) {
    return std::find_if(challenges.begin(), challenges.end(),
                        [&](const Challenge& challenge) { return challenge.scheme == scheme; });
  };
  base();
  const std::lock_guard lock(mutex_);
  if (authorization_ != used) return true;  // another thread was faster
  if (const auto bearer = find("bearer"); bearer != challenges.end()) {
    challenge_ = *bearer;
    renew();
    return true;
  }
  if (find("basic") == challenges.end() || credentials_.username.empty()) return false;
  if (authorization_ == basic(credentials_)) return false;  // refused already
  challenge_ = *find("basic");
  authorization_ = basic(credentials_);
  return true;
}

void Session::renew() {
  const Token token = fetchToken(*challenge_, false);
  authorization_ = "Bearer " + token.token;
  expires_ = std::chrono::steady_clock::now() + token.lifetime;
}

TransferRequest Session::tokenRequest(const Challenge& challenge, const Url& realm,
                                      bool offline) const {
  std::vector<std::string> scopes = scopes_;
  if (scopes.empty() && !challenge.parameter("scope").empty() && !offline) {
    scopes.push_back(challenge.parameter("scope"));
  }
  const std::string service = challenge.parameter("service");
  TransferRequest request;
  request.url = realm;
  if (!credentials_.identity_token.empty()) {
    std::string form = "?grant_type=refresh_token";  // a query until its '?' is cut off
    addQuery(form, "service", service);
    addQuery(form, "client_id", kClientId);
    addQuery(form, "refresh_token", credentials_.identity_token);
    std::string joined;
    for (const std::string& scope : scopes) joined += (joined.empty() ? "" : " ") + scope;
    addQuery(form, "scope", joined);
    request.method = "POST";
    request.body = form.substr(1);
    request.headers.push_back("Content-Type: application/x-www-form-urlencoded");
    return request;
  }
  if (!service.empty()) addQuery(request.url.target, "service", service);
  for (const std::string& scope : scopes) addQuery(request.url.target, "scope", scope);
  if (offline) {
    addQuery(request.url.target, "offline_token", "true");
    addQuery(request.url.target, "client_id", kClientId);
  }
  if (!credentials_.username.empty()) {
    addQuery(request.url.target, "account", credentials_.username);
    request.headers.push_back("Authorization: " + basic(credentials_));
  }
  return request;
}

Session::Token Session::fetchToken(const Challenge& challenge, bool offline) const {
  const Url realm = Url::parse(challenge.parameter("realm"));
  if (base_->scheme == "https" && realm.scheme == "http") {
    throw Error(ErrorKind::kForbidden, "get a token for " + registry_ + " from " +
                                           realm.authority() + ": from https to plain http");
  }
  for (int attempt = 0;; ++attempt) {
    const bool last = attempt + 1 >= kMaxAttempts;
    std::string retry_after;
    try {
      Transfer answer(tokenRequest(challenge, realm, offline), options_, &connections_);
      const int status = answer.head().status;
      if (status == 200) {
        Token token;
        const Json document =
            Json::parse(answer.text(kMaxTokenAnswerBytes, "token"), nullptr, false);
        if (document.is_object()) {
          token.token = stringOf(document, "token");
          if (token.token.empty()) token.token = stringOf(document, "access_token");
          token.refresh_token = stringOf(document, "refresh_token");
          const auto seconds = document.find("expires_in");
          if (seconds != document.end() && seconds->is_number_unsigned()) {
            token.lifetime = std::chrono::seconds(std::min<uint64_t>(
                seconds->get<uint64_t>(), static_cast<uint64_t>(kMaxTokenLifetime.count())));
          }
        }
        token.lifetime = std::max(token.lifetime, kMinTokenLifetime);
        if (!isPlainToken(token.token)) {
          throw Error(ErrorKind::kCorrupt,
                      "get a token from " + realm.authority() + ": the answer holds none");
        }
        return token;
      }
      if (status == 400 || status == 401 || status == 403) {
        throw Error(ErrorKind::kUnauthorized,
                    "unauthorized: " +
                        std::string(credentials_.empty() ? "authentication required"
                                                         : "incorrect username or password") +
                        " (" + realm.authority() + " said " + readError(answer).text + ")");
      }
      if (last || !mayTryAgain(status)) {
        throw unexpected(answer, "get a token from " + realm.authority());
      }
      retry_after = answer.head().header("retry-after");
    } catch (const TransferError& error) {
      if (last || !error.retryable()) throw;
    }
    pause(attempt, retry_after);
  }
}

std::string Session::login() {
  Url url = base();
  url.target = "/v2/";
  Transfer first({.method = "GET", .url = url, .headers = {}, .body = {}, .sent = {}}, options_,
                 &connections_);
  if (first.head().status == 200) return {};  // everybody may
  if (first.head().status != 401) throw unexpected(first, "log in to " + registry_);
  const Error refused(ErrorKind::kUnauthorized, "unauthorized: incorrect username or password");
  if (!authenticate(first, {})) throw refused;
  const auto second =
      send({.method = "GET", .target = "/v2/", .url = {}, .headers = {}, .body = {}, .sent = {}});
  if (second->head().status == 401) throw refused;
  if (second->head().status != 200) throw unexpected(*second, "log in to " + registry_);
  const std::lock_guard lock(mutex_);
  if (challenge_->scheme != "bearer") return {};
  return credentials_.identity_token.empty() ? fetchToken(*challenge_, true).refresh_token
                                             : credentials_.identity_token;
}

}  // namespace hull::registry
