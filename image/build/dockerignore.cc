#include "image/build/dockerignore.h"

#include <algorithm>

#include "base/error.h"
#include "image/build/glob.h"

namespace hull::build {

namespace {

constexpr size_t kMaxPatternBytes = 4096;

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\v\f");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\v\f") - first + 1);
}

// Go's filepath.Clean on a relative path, leading slashes dropped: "./a//b/../c/" is a, c.
std::vector<std::string> cleanParts(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == ".." && !parts.empty() && parts.back() != "..") {
      parts.pop_back();
    } else {
      parts.emplace_back(part);
    }
  }
  return parts;
}

// All of `path` against all of `pattern`: "**" takes any number of components. Rows of reachable
// pattern positions keep it at |pattern| × |path| steps.
bool matchesParts(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  std::vector<bool> reachable(pattern.size() + 1);
  reachable[0] = true;
  const auto skipStars = [&](std::vector<bool>& row) {
    for (size_t i = 0; i < pattern.size(); ++i) {
      if (row[i] && pattern[i] == "**") row[i + 1] = true;
    }
  };
  skipStars(reachable);
  for (const auto& part : path) {
    std::vector<bool> after(pattern.size() + 1);
    for (size_t i = 0; i < pattern.size(); ++i) {
      if (!reachable[i]) continue;
      if (pattern[i] == "**") {
        after[i] = true;
      } else if (globMatches(pattern[i], part)) {
        after[i + 1] = true;
      }
    }
    skipStars(after);
    reachable = std::move(after);
  }
  return reachable[pattern.size()];
}

// A path below `folder` may match all of `pattern`.
bool reachesBelow(const std::vector<std::string>& pattern, const std::vector<std::string>& folder) {
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (i == folder.size() || pattern[i] == "**") return true;
    if (!globMatches(pattern[i], folder[i])) return false;
  }
  return false;
}

}  // namespace

IgnoreRules IgnoreRules::parse(std::string_view text, const std::string& file) {
  if (text.size() > kMaxIgnoreBytes)
    throw Error(ErrorKind::kTooLarge, "read " + file + ": larger than 1 MiB");
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  IgnoreRules rules;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with('#')) continue;
    line = trim(line);
    if (line.empty()) continue;
    const std::string place = file + ":" + std::to_string(number) + ": ";
    if (line.size() > kMaxPatternBytes || rules.patterns_.size() == kMaxIgnorePatterns)
      throw Error(ErrorKind::kTooLarge, place + "too long a pattern, or too many of them");
    Pattern pattern;
    pattern.exception = line.starts_with('!');
    if (pattern.exception) line = trim(line.substr(1));
    if (line.empty())
      throw Error(ErrorKind::kInvalidArgument, place + "'!' without a pattern (write !path)");
    if (!isValidGlob(line)) {
      throw Error(ErrorKind::kInvalidArgument,
                  place + "syntax error in pattern \"" + std::string(line) +
                      "\" (a [ needs a ] and something before it, a \\ something behind it)");
    }
    pattern.parts = cleanParts(line);
    if (pattern.parts.empty()) continue;  // "." or "/": Docker ignores these
    rules.patterns_.push_back(std::move(pattern));
  }
  return rules;
}

bool IgnoreRules::excludes(std::string_view path) const {
  const std::vector<std::string> parts = cleanParts(path);
  if (parts.empty()) return false;
  bool excluded = false;
  for (const auto& pattern : patterns_) {
    if (pattern.exception != excluded) continue;  // it could change nothing
    std::vector<std::string> prefix;
    for (const auto& part : parts) {
      prefix.push_back(part);
      if (matchesParts(pattern.parts, prefix)) {
        excluded = !pattern.exception;
        break;
      }
    }
  }
  return excluded;
}

bool IgnoreRules::prunes(std::string_view directory) const {
  const std::vector<std::string> parts = cleanParts(directory);
  return excludes(directory) &&
         std::none_of(patterns_.begin(), patterns_.end(), [&](const Pattern& pattern) {
           return pattern.exception && reachesBelow(pattern.parts, parts);
         });
}

}  // namespace hull::build
