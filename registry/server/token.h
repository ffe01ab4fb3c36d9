// JSON Web Tokens as registries use them (distribution's token specification; RFC 7519, RFC 7518
// §3.3 and §3.4): signed with ES256, verified with ES256 or RS256 by OpenSSL. A token comes from
// the network and is untrusted until its signature, issuer, audience and times are checked. Keys
// are immutable once read; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxTokenTextBytes = 32 << 10;
inline constexpr size_t kMaxTokenGrants = 256;
inline constexpr std::chrono::seconds kTokenLifetime{300};
inline constexpr std::chrono::seconds kClockSkew{60};  // between us and an issuer

struct Grant {
  std::string type;  // "repository", "registry"
  std::string name;
  std::vector<std::string> actions;  // "pull", "push", "delete", "*"
  bool operator==(const Grant&) const = default;
};

struct TokenClaims {
  std::string issuer;
  std::string subject;
  std::string audience;
  int64_t not_before = 0;  // seconds since the epoch
  int64_t expires = 0;
  std::vector<Grant> grants;
};

// The claims of a token's second part; nullopt when it makes no sense. Untrusted JSON.
std::optional<TokenClaims> parseClaims(std::string_view json, std::string_view audience);

// "repository:team/app:pull,push" of a token request; nullopt when it is none.
std::optional<Grant> parseScope(std::string_view scope);

// Public keys that tokens may be signed with.
class TokenKeys {
 public:
  // PEM: public keys, certificates or private keys, any number. Throws kInvalidArgument.
  explicit TokenKeys(std::string_view pem);
  ~TokenKeys();
  // nullopt: wrong in whatever way. `now` in seconds since the epoch.
  std::optional<TokenClaims> verify(std::string_view token, std::string_view issuer,
                                    std::string_view audience, int64_t now) const;
  size_t size() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A P-256 key of our own, made at the first start and kept in a file (0600).
class TokenSigner {
 public:
  explicit TokenSigner(const std::string& path);
  ~TokenSigner();
  std::string sign(const TokenClaims& claims) const;
  const std::string& pem() const { return pem_; }

 private:
  struct State;
  std::string pem_;
  std::unique_ptr<State> state_;
};

}  // namespace hull::registry
