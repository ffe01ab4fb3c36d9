#include "image/build/glob.h"

#include <cstddef>

namespace hull::build {

namespace {

// Reads one character or class of `glob` at `at` and says whether `c` matches it. Classes as in
// Go's filepath.Match: [abc], [^a-z], with \ as the escape. `at` moves behind what was read.
bool matchesOne(std::string_view glob, size_t& at, char c) {
  if (glob[at] == '?') {
    ++at;
    return true;
  }
  if (glob[at] == '[') {
    const size_t start = at++;
    const bool negated = at < glob.size() && glob[at] == '^';
    if (negated) ++at;
    bool matched = false;
    const auto next = [&] {
      if (glob[at] == '\\' && at + 1 < glob.size()) ++at;
      return glob[at++];
    };
    while (at < glob.size() && glob[at] != ']') {
      const char low = next();
      char high = low;
      if (at + 1 < glob.size() && glob[at] == '-' && glob[at + 1] != ']') {
        ++at;
        high = next();
      }
      matched |= low <= c && c <= high;
    }
    if (at < glob.size()) {
      ++at;
      return matched != negated;
    }
    at = start;  // no closing bracket: a plain character
  }
  if (glob[at] == '\\' && at + 1 < glob.size()) ++at;
  return glob[at++] == c;
}

// Behind a character of a class; npos when none is there.
size_t behindMember(std::string_view glob, size_t at) {
  if (at >= glob.size() || glob[at] == '-' || glob[at] == ']') return glob.npos;
  return at + (glob[at] == '\\' ? 2 : 1);
}

// Behind the class that begins at `at`; npos when it does not end, or is none.
size_t behindClass(std::string_view glob, size_t at) {
  at += glob.substr(at + 1).starts_with('^') ? 2 : 1;
  do {
    at = behindMember(glob, at);
    if (at < glob.size() && glob[at] == '-') at = behindMember(glob, at + 1);
  } while (at < glob.size() && glob[at] != ']');
  return at < glob.size() ? at + 1 : glob.npos;
}

}  // namespace

bool isGlob(std::string_view pattern) {
  return pattern.find_first_of("*?[") != std::string_view::npos;
}

bool isValidGlob(std::string_view glob) {
  size_t at = 0;
  while (at < glob.size()) {
    if (glob[at] == '[')
      at = behindClass(glob, at);
    else
      at += glob[at] == '\\' ? 2 : 1;
  }
  return at == glob.size();
}

// Linear backtracking over the last star.
bool globMatches(std::string_view glob, std::string_view text) {
  size_t g = 0, t = 0, star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_text = t;
      continue;
    }
    size_t next = g;
    if (g < glob.size() && matchesOne(glob, next, text[t])) {
      g = next;
      ++t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace hull::build
