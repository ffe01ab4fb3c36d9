// Patterns that name repositories and tags in the configuration: '*' stands for any run of
// characters but '/', '**' for any run at all, everything else for itself. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxPatternBytes = 512;

// Takes time proportional to the product of the two lengths at worst.
bool matchesPattern(std::string_view pattern, std::string_view text);

// Whether one of the "<repository pattern>:<tag pattern>" matches.
bool matchesTag(const std::vector<std::string>& patterns, std::string_view repository,
                std::string_view tag);

}  // namespace hull::registry
