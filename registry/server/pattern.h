// Patterns that name repositories and tags in the configuration: '*' stands for any run of
// characters but '/', '**' for any run at all, everything else for itself. Pure functions.
#pragma once

#include <string_view>

namespace hull::registry {

inline constexpr size_t kMaxPatternBytes = 512;

// Takes time proportional to the product of the two lengths at worst.
bool matchesPattern(std::string_view pattern, std::string_view text);

}  // namespace hull::registry
