#include "registry/server/pattern.h"

#include <algorithm>

namespace hull::registry {

// One row of the usual table per pattern element: `at[i]` says that the pattern so far matches the
// first i characters.
bool matchesPattern(std::string_view pattern, std::string_view text) {
  std::vector<bool> at(text.size() + 1, false);
  at[0] = true;
  for (size_t p = 0; p < pattern.size(); ++p) {
    const bool star = pattern[p] == '*';
    const bool any = star && p + 1 < pattern.size() && pattern[p + 1] == '*';
    if (any) ++p;
    if (star) {
      for (size_t i = 0; i < text.size(); ++i) {
        if (at[i] && (any || text[i] != '/')) at[i + 1] = true;
      }
      continue;
    }
    for (size_t i = text.size(); i > 0; --i) at[i] = at[i - 1] && text[i - 1] == pattern[p];
    at[0] = false;
  }
  return at[text.size()];
}

bool matchesTag(const std::vector<std::string>& patterns, std::string_view repository,
                std::string_view tag) {
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string_view pattern) {
    const size_t colon = pattern.rfind(':');
    return colon != std::string_view::npos &&
           matchesPattern(pattern.substr(0, colon), repository) &&
           matchesPattern(pattern.substr(colon + 1), tag);
  });
}

}  // namespace hull::registry
