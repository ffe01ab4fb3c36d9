// Talking to one repository of one registry: finds out http or https, authenticates (Basic, Bearer
// tokens, identity tokens), follows redirects without taking credentials along, tries again what
// may be tried again. Any thread; one per pull or push.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "registry/client/client.h"
#include "registry/client/transfer.h"
#include "registry/http/challenge.h"
#include "registry/http/url.h"

namespace hull::registry {

inline constexpr int kMaxAttempts = 5;
inline constexpr int kMaxRedirects = 5;
inline constexpr size_t kMaxTokenBytes = 64 << 10;
inline constexpr size_t kMaxTokenAnswerBytes = 1 << 20;
inline constexpr size_t kMaxErrorBytes = 64 << 10;
inline constexpr std::chrono::seconds kMaxRetryAfter{60};

// A request below /v2/ or at an absolute URL that the registry gave.
struct Call {
  std::string method = "GET";
  std::string target;      // "/v2/…"
  std::optional<Url> url;  // instead of `target`
  std::vector<std::string> headers;
  std::string body;
  int file = -1;
  uint64_t file_bytes = 0;
  std::function<void(uint64_t)> sent;
  bool retry = true;  // after 5xx and broken connections
};

class Session {
 public:
  // `scopes` as in "repository:library/debian:pull"; the credentials are for this registry.
  Session(const std::string& registry, std::vector<std::string> scopes,
          const Credentials& credentials, const ClientOptions& options);

  // The answer, whatever its status, once neither authentication nor another try can change it.
  std::unique_ptr<Transfer> send(const Call& call);
  // What a Location in `answer` means; throws when it is missing.
  Url location(const Transfer& answer) const;

  // Authenticates with credentials only; throws kUnauthorized. Returns an identity token or "".
  std::string login();

  const ClientOptions& options() const { return options_; }
  // Sleeps before attempt `attempt` + 1; ends early when cancelled.
  void pause(int attempt, const std::string& retry_after) const;

 private:
  struct Token {
    std::string token;
    std::string refresh_token;
    std::chrono::seconds lifetime{60};
  };

  const Url& base();
  bool answers(const Url& base) const;
  std::unique_ptr<Transfer> follow(const Call& call, const std::string& authorization);
  std::string authorization();
  // False when nothing better than `used` can be had.
  bool authenticate(const Transfer& answer, const std::string& used);
  void renew();  // with mutex_ held
  Token fetchToken(const Challenge& challenge, bool offline) const;
  TransferRequest tokenRequest(const Challenge& challenge, const Url& realm, bool offline) const;

  const std::string registry_;
  const std::vector<std::string> scopes_;
  const Credentials credentials_;
  const ClientOptions& options_;
  mutable ConnectionPool connections_;

  std::mutex base_mutex_;
  std::optional<Url> base_;  // guarded by base_mutex_
  std::mutex mutex_;
  std::string authorization_;           // guarded by mutex_, as all below
  std::optional<Challenge> challenge_;  // the one authorization_ answers
  std::chrono::steady_clock::time_point expires_;
};

// "manifest unknown: …" of an error answer; reads its body. Hostile text: bounded, cleaned.
struct RegistryError {
  std::string code;  // "MANIFEST_UNKNOWN"; "" when the body says none
  std::string text;
};
RegistryError readError(Transfer& answer);
RegistryError parseError(std::string_view body, int status);

// An error for an answer nobody expected.
Error unexpected(Transfer& answer, const std::string& doing);

}  // namespace hull::registry
