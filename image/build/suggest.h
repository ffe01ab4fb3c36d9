// "Did you mean …?" for misspelt words. Pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace hull::build {

// The candidate a misspelt word may have meant; empty when none is near.
std::string nearest(std::string_view word, std::span<const std::string_view> candidates);

// " (did you mean X?)", or nothing.
std::string suggestion(std::string_view word, std::span<const std::string_view> candidates,
                       std::string_view prefix = {});

}  // namespace hull::build
