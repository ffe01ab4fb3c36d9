// The grammar is that of github.com/distribution/reference: [domain/]path[:tag][@digest], with
// Docker's defaults (docker.io, library/, latest).
#include "image/types/reference.h"

#include <algorithm>

#include "base/error.h"

namespace hull::image {

namespace {

constexpr std::string_view kDefaultRegistry = "docker.io";
constexpr std::string_view kLegacyRegistry = "index.docker.io";
constexpr std::string_view kOfficialPrefix = "library/";
constexpr size_t kMaxReferenceNameBytes = 255;
constexpr size_t kMaxTagBytes = 128;
constexpr size_t kMaxReferenceBytes = 1024;  // name, tag and the longest digest together
constexpr size_t kImageIdHexDigits = 64;

bool isLower(char c) {
  return c >= 'a' && c <= 'z';
}
bool isUpper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool isDigit(char c) {
  return c >= '0' && c <= '9';
}
bool isAlphanumeric(char c) {
  return isLower(c) || isUpper(c) || isDigit(c);
}
bool isHexDigit(char c) {
  return isDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

[[noreturn]] void refuse(std::string_view text, const std::string& why) {
  throw Error(
      ErrorKind::kInvalidArgument,
      "invalid reference \"" + std::string(text.substr(0, kMaxReferenceBytes)) + "\": " + why);
}

// path-component: alphanumerics, separated by '.', '_', '__' or any number of '-'.
bool isPathComponent(std::string_view part) {
  size_t i = 0;
  for (;;) {
    const size_t start = i;
    while (i < part.size() && (isLower(part[i]) || isDigit(part[i]))) ++i;
    if (i == start) return false;
    if (i == part.size()) return true;
    if (part[i] == '.') {
      ++i;
    } else if (part[i] == '_') {
      i += part.substr(i).starts_with("__") ? 2 : 1;
    } else if (part[i] == '-') {
      while (i < part.size() && part[i] == '-') ++i;
    } else {
      return false;
    }
  }
}

bool isHostLabel(std::string_view label) {
  return !label.empty() && isAlphanumeric(label.front()) && isAlphanumeric(label.back()) &&
         std::all_of(label.begin(), label.end(),
                     [](char c) { return isAlphanumeric(c) || c == '-'; });
}

bool isHost(std::string_view host) {
  if (host.starts_with('[')) {
    if (host.size() < 3 || !host.ends_with(']')) return false;
    const std::string_view inner = host.substr(1, host.size() - 2);
    return std::all_of(inner.begin(), inner.end(),
                       [](char c) { return isHexDigit(c) || c == ':'; });
  }
  for (;;) {
    const size_t dot = host.find('.');
    if (!isHostLabel(host.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    host.remove_prefix(dot + 1);
  }
}

bool isDomain(std::string_view domain) {
  const size_t colon = domain.rfind(':');
  if (colon == std::string_view::npos || domain.ends_with(']')) return isHost(domain);
  const std::string_view port = domain.substr(colon + 1);
  return !port.empty() && std::all_of(port.begin(), port.end(), isDigit) &&
         isHost(domain.substr(0, colon));
}

bool isTag(std::string_view tag) {
  return !tag.empty() && tag.size() <= kMaxTagBytes && tag.front() != '.' && tag.front() != '-' &&
         std::all_of(tag.begin(), tag.end(),
                     [](char c) { return isAlphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

// The first part of a name is a registry when it cannot be a Docker Hub user.
bool looksLikeDomain(std::string_view first) {
  return first.find_first_of(".:") != std::string_view::npos || first == "localhost" ||
         std::any_of(first.begin(), first.end(), isUpper);
}

void checkPath(std::string_view whole, std::string_view path) {
  if (path.empty()) refuse(whole, "the repository name is empty");
  if (std::any_of(path.begin(), path.end(), isUpper)) {
    refuse(whole, "repository name must be lowercase");
  }
  for (;;) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (!isPathComponent(part)) {
      refuse(whole, "\"" + std::string(part) + "\" is no valid part of a repository name");
    }
    if (slash == std::string_view::npos) return;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

Reference Reference::parse(std::string_view text) {
  if (text.empty()) refuse(text, "it is empty");
  if (text.size() > kMaxReferenceBytes) refuse(text, "it is too long");
  if (text.size() == kImageIdHexDigits && std::all_of(text.begin(), text.end(), [](char c) {
        return isDigit(c) || (c >= 'a' && c <= 'f');
      })) {
    refuse(text, "64 hexadecimal digits are an image id, not a name");
  }

  Reference result;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    try {
      result.digest = Digest::parse(rest.substr(at + 1));
    } catch (const Error&) {
      refuse(text, "the part after @ is no valid digest");
    }
    rest = rest.substr(0, at);
  }

  std::string_view domain;
  if (const size_t slash = rest.find('/');
      slash != std::string_view::npos && looksLikeDomain(rest.substr(0, slash))) {
    domain = rest.substr(0, slash);
    rest.remove_prefix(slash + 1);
    if (!isDomain(domain)) refuse(text, "\"" + std::string(domain) + "\" is no valid registry");
  }
  if (domain.empty() || domain == kLegacyRegistry) domain = kDefaultRegistry;
  if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
    const std::string_view tag = rest.substr(colon + 1);
    if (!isTag(tag)) {
      refuse(text, "\"" + std::string(tag) +
                       "\" is no valid tag (1 to 128 of A-Za-z0-9_.-, not "
                       "starting with . or -)");
    }
    result.tag = tag;
    rest = rest.substr(0, colon);
  } else if (result.digest.empty()) {
    result.tag = "latest";
  }
  checkPath(text, rest);
  result.registry = domain;
  if (domain == kDefaultRegistry && rest.find('/') == std::string_view::npos) {
    result.repository = std::string(kOfficialPrefix);
  }
  result.repository += rest;
  if (result.name().size() > kMaxReferenceNameBytes) {
    refuse(text, "the name must not be longer than 255 characters");
  }
  return result;
}

std::string Reference::name() const {
  return registry + "/" + repository;
}

namespace {
std::string withSuffix(std::string name, const Reference& reference) {
  if (!reference.tag.empty()) name += ":" + reference.tag;
  if (!reference.digest.empty()) name += "@" + reference.digest.text();
  return name;
}
}  // namespace

std::string Reference::text() const {
  return withSuffix(name(), *this);
}

std::string Reference::familiarName() const {
  if (registry != kDefaultRegistry) return name();
  if (repository.starts_with(kOfficialPrefix)) {
    const std::string rest = repository.substr(kOfficialPrefix.size());
    if (rest.find('/') == std::string::npos) return rest;
  }
  // "docker.io/my.org/x": without the registry the first part would be taken for one.
  if (looksLikeDomain(repository.substr(0, repository.find('/')))) return name();
  return repository;
}

std::string Reference::familiar() const {
  return withSuffix(familiarName(), *this);
}

}  // namespace hull::image
