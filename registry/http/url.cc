#include "registry/http/url.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxQuotedBytes = 200;  // of a wrong URL in a message
constexpr uint16_t kHttpPort = 80;
constexpr uint16_t kHttpsPort = 443;

[[noreturn]] void refuse(std::string_view text, const char* why) {
  // The query may hold a signature: not into messages.
  const std::string_view shown = text.substr(0, std::min(text.find('?'), kMaxQuotedBytes));
  throw Error(ErrorKind::kInvalidArgument, "parse url \"" + std::string(shown) + "\": " + why);
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

uint16_t defaultPort(std::string_view scheme) {
  return scheme == "https" ? kHttpsPort : kHttpPort;
}

bool isUnreserved(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' ||
         c == '~';
}

int hexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool isHostChar(char c) {
  return isUnreserved(c);
}

bool isIpv6Char(char c) {
  return hexValue(c) >= 0 || c == ':' || c == '.';
}

uint16_t parsePort(std::string_view text, std::string_view port) {
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
  if (error != std::errc() || end != port.data() + port.size() || value == 0) {
    refuse(text, "bad port");
  }
  return value;
}

void parseAuthority(std::string_view text, std::string_view authority, Url& url) {
  if (authority.find('@') != std::string_view::npos) refuse(text, "user names are not accepted");
  std::string_view host = authority;
  std::string_view rest;
  bool good = true;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) refuse(text, "bad host");
    host = authority.substr(1, end - 1);
    rest = authority.substr(end + 1);
    good = std::all_of(host.begin(), host.end(), isIpv6Char);
  } else {
    const size_t colon = authority.find(':');
    host = authority.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : authority.substr(colon);
    good = std::all_of(host.begin(), host.end(), isHostChar);
  }
  if (!good || host.empty()) refuse(text, "bad host");
  url.host = lower(host);
  url.port = defaultPort(url.scheme);
  if (rest.empty()) return;
  if (rest[0] != ':') refuse(text, "bad host");
  url.port = parsePort(text, rest.substr(1));
}

}  // namespace

Url Url::parse(std::string_view text) {
  if (text.size() > kMaxUrlBytes) refuse(text, "too long");
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f || c == '\\') {
      refuse(text, "spaces and control characters are not accepted");
    }
  }
  const size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) refuse(text, "expected http:// or https://");
  Url url;
  url.scheme = lower(text.substr(0, scheme_end));
  if (url.scheme != "http" && url.scheme != "https") refuse(text, "expected http:// or https://");
  std::string_view rest = text.substr(scheme_end + 3);
  rest = rest.substr(0, rest.find('#'));
  const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
  parseAuthority(text, rest.substr(0, authority_end), url);
  const std::string_view target = rest.substr(authority_end);
  url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  return url;
}

Url Url::resolve(std::string_view location) const {
  const size_t first = location.find_first_of(":/?#");
  if (first != std::string_view::npos && location[first] == ':') return parse(location);
  if (location.starts_with("//")) return parse(scheme + ":" + std::string(location));
  const std::string origin = scheme + "://" + authority();
  if (location.starts_with('/')) return parse(origin + std::string(location));
  const std::string path = target.substr(0, target.find('?'));
  if (location.empty() || location[0] == '?' || location[0] == '#') {
    return parse(origin + path + std::string(location));
  }
  return parse(origin + path.substr(0, path.rfind('/') + 1) + std::string(location));
}

std::string Url::authority() const {
  std::string result = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != defaultPort(scheme)) result += ":" + std::to_string(port);
  return result;
}

std::string Url::text() const {
  return scheme + "://" + authority() + target;
}

bool Url::sameOrigin(const Url& other) const {
  return scheme == other.scheme && host == other.host && port == other.port;
}

void addQuery(std::string& target, std::string_view name, std::string_view value) {
  target += target.find('?') == std::string::npos ? '?' : '&';
  target += std::string(name) + "=" + percentEncode(value);
}

std::string percentEncode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string result;
  for (const char c : text) {
    if (isUnreserved(c)) {
      result.push_back(c);
    } else {
      const auto value = static_cast<unsigned char>(c);
      result.push_back('%');
      result.push_back(kDigits[value >> 4]);
      result.push_back(kDigits[value & 15]);
    }
  }
  return result;
}

std::optional<std::string> percentDecode(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hexValue(text[i + 1]);
    const int low = hexValue(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    result.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return result;
}

namespace {

// Calls `take(name, value)` for each pair, nullopt for what does not decode.
template <typename Take>
void forEachPair(std::string_view text, Take&& take) {
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    if (item.empty()) continue;
    const size_t equals = std::min(item.find('='), item.size());
    std::string raw(item.substr(std::min(equals + 1, item.size())));
    std::replace(raw.begin(), raw.end(), '+', ' ');
    take(percentDecode(item.substr(0, equals)), percentDecode(raw));
  }
}

}  // namespace

std::optional<Query> parseQuery(std::string_view text) {
  Query result;
  bool good = true;
  forEachPair(text, [&](std::optional<std::string> name, std::optional<std::string> value) {
    good = good && name && value;
    if (good) result.emplace(std::move(*name), std::move(*value));
  });
  return good ? std::optional(std::move(result)) : std::nullopt;
}

std::vector<std::string> parseAll(std::string_view text, std::string_view name) {
  std::vector<std::string> values;
  forEachPair(text, [&](const std::optional<std::string>& key, std::optional<std::string> value) {
    if (key == name && value) values.push_back(std::move(*value));
  });
  return values;
}

bool isLoopbackHost(std::string_view host) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string name = lower(host);
  if (name == "localhost" || name.ends_with(".localhost") || name == "::1") return true;
  if (!name.starts_with("127.")) return false;
  // Four numbers, or "127.example.org" would be taken for one.
  return std::count(name.begin(), name.end(), '.') == 3 &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
}

}  // namespace hull::registry
