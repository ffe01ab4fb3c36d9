#include "registry/server/access.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "registry/http/url.h"
#include "registry/server/pattern.h"
#include "registry/server/route.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxAccessFileBytes = size_t{4} << 20;
constexpr size_t kMaxTokenFormBytes = 16 << 10;
constexpr size_t kMaxScopes = 64;  // of one token request
constexpr const char* kOwnIssuer = "hull-registry";
constexpr const char* kRealm = "hull-registry";

std::string_view nameOf(Action action) {
  switch (action) {
    case Action::kPull:
      return "pull";
    case Action::kPush:
      return "push";
    case Action::kDelete:
      return "delete";
  }
  return "";
}

bool contains(const std::vector<std::string>& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

int64_t secondsNow() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool startsWith(std::string_view text, std::string_view scheme) {
  return text.size() >= scheme.size() &&
         std::equal(scheme.begin(), scheme.end(), text.begin(),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
}

ApiError unauthorized(const std::string& challenge, const std::string& why) {
  return ApiError(401, code::kUnauthorized, why, {{"WWW-Authenticate", challenge}});
}

// A Host header as part of a URL: no more than an authority.
bool isAuthority(std::string_view host) {
  try {
    return Url::parse("http://" + std::string(host)).target == "/" &&
           host.find('/') == std::string_view::npos;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

AccessControl::AccessControl(const AccessOptions& options, const TokenSigner* signer)
    : options_(options) {
  if (!options.htpasswd.empty()) {
    passwords_ = std::make_unique<Passwords>(readFile(options.htpasswd, kMaxAccessFileBytes));
  }
  if (!options.tokens) return;
  if (!options.token_realm.empty()) {
    keys_ = std::make_unique<TokenKeys>(readFile(options.token_keys, kMaxAccessFileBytes));
    return;
  }
  if (!passwords_ || !signer) {
    throw Error(ErrorKind::kInvalidArgument,
                "tokens of this server need users: name a file with access.htpasswd or --htpasswd");
  }
  keys_ = std::make_unique<TokenKeys>(signer->pem());
  options_.token_issuer = kOwnIssuer;
  signer_ = signer;
}

Principal AccessControl::basic(std::string_view authorization) const {
  auto name = passwords_ ? passwords_->user(authorization) : std::nullopt;
  if (!name) {
    throw unauthorized("Basic realm=\"" + std::string(kRealm) + "\"",
                       "wrong user name or password");
  }
  return {std::move(*name), std::nullopt};
}

Principal AccessControl::authenticate(const Request& request) const {
  const std::string_view authorization = request.header("authorization");
  if (open() || authorization.empty()) return {};
  if (startsWith(authorization, "bearer ") && keys_) {
    auto claims = keys_->verify(authorization.substr(7), options_.token_issuer,
                                options_.token_service, secondsNow());
    if (claims) return {std::move(claims->subject), std::move(claims->grants)};
    throw unauthorized(challenge(request, {}, Action::kPull, false) + ",error=\"invalid_token\"",
                       "the token is not valid (any more)");
  }
  return basic(authorization);
}

bool AccessControl::ruled(std::string_view name, std::string_view repository, Action action) const {
  if (options_.anonymous_pull && action == Action::kPull) return true;
  if (options_.rules.empty()) return !name.empty();
  return std::any_of(options_.rules.begin(), options_.rules.end(), [&](const AccessRule& rule) {
    const bool action_fits = action == Action::kPull   ? rule.pull
                             : action == Action::kPush ? rule.push
                                                       : rule.remove;
    const bool user_fits =
        contains(rule.users, "anonymous") ||
        (!name.empty() && (contains(rule.users, "*") || contains(rule.users, name)));
    return action_fits && user_fits && matchesPattern(rule.repository, repository);
  });
}

bool AccessControl::allows(const Principal& principal, std::string_view repository,
                           Action action) const {
  if (open()) return true;
  if (!principal.grants) return ruled(principal.name, repository, action);
  return std::any_of(principal.grants->begin(), principal.grants->end(), [&](const Grant& grant) {
    return grant.type == "repository" && grant.name == repository &&
           (contains(grant.actions, nameOf(action)) || contains(grant.actions, "*"));
  });
}

bool AccessControl::allowsCatalog(const Principal& principal) const {
  if (open()) return true;
  if (!principal.grants) return !principal.name.empty();
  return std::any_of(principal.grants->begin(), principal.grants->end(), [](const Grant& grant) {
    return grant.type == "registry" && grant.name == "catalog" && contains(grant.actions, "*");
  });
}

bool AccessControl::allowsBase(const Principal& principal) const {
  if (open() || !principal.anonymous()) return true;
  // Without tokens, a client that is told nothing here asks for nothing later.
  if (keys_) return false;
  return options_.anonymous_pull ||
         std::any_of(options_.rules.begin(), options_.rules.end(),
                     [](const AccessRule& rule) { return contains(rule.users, "anonymous"); });
}

std::string AccessControl::challenge(const Request& request, std::string_view repository,
                                     Action action, bool insufficient) const {
  if (!keys_) return "Basic realm=\"" + std::string(kRealm) + "\"";
  std::string realm = options_.token_realm;
  if (realm.empty()) {
    const std::string_view host = request.header("host");
    const bool tls = request.tls || request.header("x-forwarded-proto") == "https";
    realm = std::string(tls ? "https://" : "http://") +
            (isAuthority(host) ? std::string(host) : "localhost") + "/token";
  }
  std::string text = "Bearer realm=\"" + realm + "\",service=\"" + options_.token_service + "\"";
  if (!repository.empty()) {
    text += ",scope=\"repository:" + std::string(repository) + ":" +
            (action == Action::kPull   ? "pull"
             : action == Action::kPush ? "pull,push"
                                       : "delete") +
            "\"";
  }
  if (insufficient) text += ",error=\"insufficient_scope\"";
  return text;
}

ApiError AccessControl::refusal(const Request& request, const Principal& principal,
                                std::string_view repository, Action action) const {
  // A token may be exchanged for one that can more; a password cannot.
  if (principal.anonymous() || principal.grants) {
    return unauthorized(challenge(request, repository, action, principal.grants.has_value()),
                        "authentication required");
  }
  return ApiError(403, code::kDenied,
                  principal.name + " may not " + std::string(nameOf(action)) + " " +
                      std::string(repository.empty() ? "the catalog" : repository));
}

// What of a wanted scope the rules give.
Grant AccessControl::allowed(const std::string& name, const Grant& wanted) const {
  Grant grant{wanted.type, wanted.name, {}};
  if (wanted.type == "registry" && wanted.name == "catalog") {
    if (!name.empty()) grant.actions = {"*"};
    return grant;
  }
  if (wanted.type != "repository" || !isRepositoryName(wanted.name)) return grant;
  for (const Action action : {Action::kPull, Action::kPush, Action::kDelete}) {
    const std::string text(nameOf(action));
    const bool asked = contains(wanted.actions, text) || contains(wanted.actions, "*");
    if (asked && ruled(name, wanted.name, action)) grant.actions.push_back(text);
  }
  return grant;
}

Response AccessControl::giveToken(Request& request) const {
  const bool form = request.method == "POST";
  const size_t question = std::min(request.target.find('?'), request.target.size());
  const std::string text =
      form ? readAll(*request.body, kMaxTokenFormBytes, "token request")
           : request.target.substr(std::min(question + 1, request.target.size()));
  const auto query = parseQuery(text);
  if (!query) throw ApiError(400, code::kUnsupported, "bad percent-encoding in the request");
  const auto field = [&](const char* name) {
    const auto it = query->find(name);
    return it == query->end() ? std::string() : it->second;
  };
  std::string authorization(request.header("authorization"));
  if (form) {
    if (field("grant_type") != "password") {
      throw ApiError(400, code::kUnsupported, "grant_type is not password");
    }
    authorization = "Basic " + base64Encode(field("username") + ":" + field("password"));
  }
  const Principal principal = authorization.empty() ? Principal{} : basic(authorization);
  const int64_t now = secondsNow();
  TokenClaims claims{options_.token_issuer,        principal.name,
                     options_.token_service,       now,
                     now + kTokenLifetime.count(), {}};
  for (const std::string& scopes : parseAll(text, "scope")) {
    std::string_view rest = scopes;
    while (!rest.empty()) {  // of a form: separated by spaces
      const std::string_view one = rest.substr(0, rest.find(' '));
      rest.remove_prefix(std::min(one.size() + 1, rest.size()));
      const auto wanted = parseScope(one);
      if (!wanted) continue;
      if (claims.grants.size() == kMaxScopes) {
        throw ApiError(400, code::kUnsupported, "too many scopes");
      }
      claims.grants.push_back(allowed(principal.name, *wanted));
    }
  }
  const std::string token = signer_->sign(claims);
  Response response;
  response.headers = {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  response.body =
      nlohmann::json(
          {{"token", token}, {"access_token", token}, {"expires_in", kTokenLifetime.count()}})
          .dump();
  return response;
}

}  // namespace hull::registry
