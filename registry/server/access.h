// Who may do what: users of the htpasswd file (Basic), tokens (Bearer; another server's, or our own
// given at /token), and rules per repository. Made anew when the configuration changes; immutable
// otherwise. Any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "registry/server/configuration.h"
#include "registry/server/message.h"
#include "registry/server/passwords.h"
#include "registry/server/token.h"

namespace hull::registry {

enum class Action { kPull, kPush, kDelete };

struct Principal {
  std::string name;                          // empty: anonymous
  std::optional<std::vector<Grant>> grants;  // of a token: these count, not the rules
  bool anonymous() const { return name.empty() && !grants; }
};

class AccessControl {
 public:
  // Reads the files; throws. `signer` is for tokens of our own (may be null without them) and
  // outlives this.
  AccessControl(const AccessOptions& options, const TokenSigner* signer);

  // Throws ApiError 401 for credentials that are wrong; without any: anonymous.
  Principal authenticate(const Request& request) const;
  bool allows(const Principal& principal, std::string_view repository, Action action) const;
  bool allowsCatalog(const Principal& principal) const;
  // Whether /v2/ answers 200: with tokens to those who have one, else to whoever may do something.
  bool allowsBase(const Principal& principal) const;
  // 401 with a challenge for who might do better, 403 for who cannot. `repository` may be empty.
  ApiError refusal(const Request& request, const Principal& principal, std::string_view repository,
                   Action action) const;

  // Our own token endpoint: GET with Basic, or POST with grant_type=password (RFC 6749 §4.3).
  bool givesTokens() const { return signer_ != nullptr; }
  Response giveToken(Request& request) const;

 private:
  bool open() const { return !passwords_ && !keys_; }
  bool ruled(std::string_view name, std::string_view repository, Action action) const;
  Principal basic(std::string_view authorization) const;
  std::string challenge(const Request& request, std::string_view repository, Action action,
                        bool insufficient) const;
  Grant allowed(const std::string& name, const Grant& wanted) const;

  AccessOptions options_;
  std::unique_ptr<Passwords> passwords_;
  std::unique_ptr<TokenKeys> keys_;
  const TokenSigner* signer_ = nullptr;
};

}  // namespace hull::registry
