// URLs of http and https as registries give them (RFC 3986): parsing, relative locations, origins,
// percent-encoding. Untrusted input. Pure values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxUrlBytes = 16 << 10;

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; IPv6 without brackets
  uint16_t port = 0;   // the scheme's default when not written
  std::string target;  // path and query, starts with '/'; no fragment

  // Throws kInvalidArgument: other schemes, user names, control characters, bad ports.
  static Url parse(std::string_view text);
  // What a Location header means in an answer from here.
  Url resolve(std::string_view location) const;

  std::string authority() const;  // "host[:port]", IPv6 in brackets, default ports left out
  std::string text() const;
  bool sameOrigin(const Url& other) const;
};

// Adds "name=value" to the query, encoding the value.
void addQuery(std::string& target, std::string_view name, std::string_view value);

std::string percentEncode(std::string_view text);                 // all but unreserved characters
std::optional<std::string> percentDecode(std::string_view text);  // nullopt: bad escape or NUL

// "a=1&b=2" (application/x-www-form-urlencoded); the first of equal names counts. nullopt when an
// escape is bad.
using Query = std::map<std::string, std::string, std::less<>>;
std::optional<Query> parseQuery(std::string_view text);
// All values of one name, in order; what does not decode is left out.
std::vector<std::string> parseAll(std::string_view text, std::string_view name);

// localhost, *.localhost, 127.0.0.0/8, ::1.
bool isLoopbackHost(std::string_view host);

}  // namespace hull::registry
