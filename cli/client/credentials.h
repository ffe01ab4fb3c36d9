// Registry credentials as Docker's client keeps them: ~/.docker/config.json (or
// $DOCKER_CONFIG/config.json) with auths, credsStore and credHelpers. Main thread.
#pragma once

#include <string>
#include <string_view>

namespace hull::cli {

struct Login {
  std::string username;
  std::string password;
  std::string identity_token;
  bool empty() const { return username.empty() && identity_token.empty(); }
};

// What a user typed as a registry, without scheme and path; nothing is docker.io.
std::string registryOf(std::string_view typed);

// The registry's key in the file: docker.io is "https://index.docker.io/v1/".
std::string credentialKey(const std::string& registry);

Login loadLogin(const std::string& registry);  // empty when there is none
void saveLogin(const std::string& registry, const Login& login);
bool eraseLogin(const std::string& registry);  // false: there was none

// The value of X-Registry-Config: every login of the file, for base images of a build.
std::string registryConfigHeader();

// The value of X-Registry-Auth for an image or registry name.
std::string authHeader(const std::string& registry, const Login& login);

}  // namespace hull::cli
