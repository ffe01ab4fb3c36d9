#include "image/build/git_address.h"

#include <algorithm>

#include "base/error.h"
#include "image/build/copy.h"
#include "image/build/fetch.h"

namespace hull::build {

namespace {

constexpr size_t kMaxReferenceBytes = 255;

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

// What git's own rules allow (git-check-ref-format), and nothing that could be an option.
void checkReference(const std::string& reference) {
  const bool bad_character = std::any_of(reference.begin(), reference.end(), [](unsigned char c) {
    return c <= ' ' || c == 0x7f ||
           std::string_view("~^:?*[\\").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (reference.starts_with('-') || reference.find("..") != std::string::npos || bad_character ||
      reference.size() > kMaxReferenceBytes || reference.ends_with(".lock") ||
      reference.find("@{") != std::string::npos) {
    fail("invalid git reference \"" + reference + "\"");
  }
}

bool isScpAddress(std::string_view text) {  // user@host:path
  const size_t at = text.find('@'), colon = text.find(':');
  return at != std::string_view::npos && colon != std::string_view::npos && at < colon && at > 0 &&
         text.find_first_of("/ ") > colon;
}

bool endsLikeGit(std::string_view text) {
  return text.substr(0, text.find('#')).ends_with(".git");
}

}  // namespace

std::optional<GitAddress> parseGitAddress(std::string_view text) {
  const bool own_scheme = text.starts_with("git://") || text.starts_with("ssh://");
  const bool scp = !own_scheme && text.find("://") == std::string_view::npos && isScpAddress(text);
  const bool file = text.starts_with("file://") && endsLikeGit(text);
  if (!own_scheme && !scp && !file && !(isUrl(text) && endsLikeGit(text))) return std::nullopt;
  GitAddress address;
  const size_t hash = text.find('#');
  address.repository = std::string(text.substr(0, hash));
  const bool blank = std::any_of(address.repository.begin(), address.repository.end(),
                                 [](unsigned char c) { return c <= ' ' || c == 0x7f; });
  if (blank || address.repository.starts_with('-'))
    fail("invalid git address \"" + address.repository + "\"");
  // An ssh host that looks like an option would be one (CVE-2017-1000117).
  const size_t host = own_scheme ? address.repository.find("://") + 3 : 0;
  const size_t user_end = address.repository.find('@', host);
  for (const size_t start : {host, user_end == std::string::npos ? host : user_end + 1}) {
    if (address.repository.substr(start).starts_with('-'))
      fail("invalid git address \"" + address.repository + "\"");
  }
  if (hash == std::string_view::npos) return address;
  const std::string_view fragment = text.substr(hash + 1);
  const size_t colon = fragment.find(':');
  address.reference = std::string(fragment.substr(0, colon));
  if (colon != std::string_view::npos) address.folder = cleanPath(fragment.substr(colon + 1));
  checkReference(address.reference);
  return address;
}

}  // namespace hull::build
