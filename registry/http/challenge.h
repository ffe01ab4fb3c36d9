// WWW-Authenticate challenges (RFC 9110 §11.6.1): several in one header, commas inside quoted
// strings, unknown schemes. Untrusted input within the bounds below; what does not parse is left
// out. Pure functions.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxChallengeBytes = 16 << 10;
inline constexpr size_t kMaxChallenges = 16;
inline constexpr size_t kMaxChallengeParameters = 32;

struct Challenge {
  std::string scheme;                             // lower case: "bearer", "basic"
  std::map<std::string, std::string> parameters;  // names in lower case, values unquoted

  std::string parameter(const std::string& name) const;  // "" when absent
};

// Every challenge of one header value.
std::vector<Challenge> parseChallenges(std::string_view header);

}  // namespace hull::registry
