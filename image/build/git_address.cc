#include "image/build/git_address.h"

#include <algorithm>

#include "base/error.h"
#include "image/build/copy.h"
#include "image/build/fetch.h"

namespace hull::build {

namespace {

constexpr size_t kMaxReferenceBytes = 255;
constexpr size_t kMaxRepositoryBytes = 4096;

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

// Nothing that git or ssh could take for an option: an ssh host that looks like one would be one
// (CVE-2017-1000117).
void checkRepository(const std::string& repository) {
  const bool blank = std::any_of(repository.begin(), repository.end(),
                                 [](unsigned char c) { return c <= ' ' || c == 0x7f; });
  const size_t scheme = repository.find("://");
  const size_t host = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t user_end = repository.find('@', host);
  bool option = repository.starts_with('-');
  for (const size_t start : {host, user_end == std::string::npos ? host : user_end + 1})
    option |= repository.substr(start).starts_with('-');
  if (blank || option || repository.empty() || repository.size() > kMaxRepositoryBytes)
    fail("invalid git address \"" + repository.substr(0, kMaxRepositoryBytes) + "\"");
}

// "../name" seen from `parent`, as git resolves it; ".." stops before the host.
std::string resolveRelative(std::string parent, std::string_view address) {
  while (parent.ends_with('/')) parent.pop_back();
  const size_t scheme = parent.find("://");
  const size_t path = scheme == std::string::npos ? parent.find(':') : parent.find('/', scheme + 3);
  const auto leavesHost = [&] {
    fail("git submodule: \"" + std::string(address) + "\" leads out of " + parent);
  };
  if (path == std::string::npos) leavesHost();
  std::string_view rest = address;
  for (;;) {
    if (rest.starts_with("./")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with("../")) {
      rest.remove_prefix(3);
      const size_t slash = parent.rfind('/');
      const bool below = slash != std::string::npos && slash >= path;
      if (!below && (scheme != std::string::npos || parent.size() <= path + 1)) leavesHost();
      parent.resize(below ? slash : path + 1);
    } else {
      return parent + (parent.ends_with(':') ? "" : "/") + std::string(rest);
    }
  }
}

}  // namespace

std::string submoduleRepository(const std::string& parent, std::string_view address) {
  std::string repository(address);
  if (address.starts_with("./") || address.starts_with("../"))
    repository = resolveRelative(parent, address);
  checkRepository(repository);
  const size_t scheme = repository.find("://");
  const std::string name = repository.substr(0, std::min(scheme, repository.size()));
  const bool known = scheme == std::string::npos
                         ? isScpAddress(repository)
                         : name == "https" || name == "http" || name == "ssh" || name == "file";
  if (!known) {
    fail("git submodule: \"" + repository +
         "\" is not fetched: only https://, http://, ssh:// and user@host:path are");
  }
  return repository;
}

std::optional<GitAddress> parseGitAddress(std::string_view text) {
  const bool own_scheme = text.starts_with("git://") || text.starts_with("ssh://");
  const bool scp = !own_scheme && text.find("://") == std::string_view::npos && isScpAddress(text);
  const bool file = text.starts_with("file://") && endsLikeGit(text);
  if (!own_scheme && !scp && !file && !(isUrl(text) && endsLikeGit(text))) return std::nullopt;
  GitAddress address;
  const size_t hash = text.find('#');
  address.repository = std::string(text.substr(0, hash));
  checkRepository(address.repository);
  if (hash == std::string_view::npos) return address;
  const std::string_view fragment = text.substr(hash + 1);
  const size_t colon = fragment.find(':');
  address.reference = std::string(fragment.substr(0, colon));
  if (colon != std::string_view::npos) address.folder = cleanPath(fragment.substr(colon + 1));
  checkReference(address.reference);
  return address;
}

}  // namespace hull::build
