// --filter name=value, given once per value, as the API takes it. Pure.
#pragma once

#include <string>
#include <vector>

namespace hull::cli {

// {"name":["value",…],…} as text; empty without filters. Throws kInvalidArgument for one without
// "=".
std::string filtersQuery(const std::vector<std::string>& filters);

// --since and --until: "10m" before now, a Unix time, or RFC 3339, to Unix seconds; empty stays so.
// Throws kInvalidArgument.
std::string timeQuery(const std::string& text);

}  // namespace hull::cli
