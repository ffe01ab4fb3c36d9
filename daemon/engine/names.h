// Container ids and names. Pure but for the random numbers.
#pragma once

#include <string>
#include <string_view>

namespace hull::engine {

std::string newId();       // 64 hex digits
std::string randomName();  // "brave_hull"
// Without a leading "/"; throws kInvalidArgument in Docker's words.
std::string checkedName(std::string_view name);
inline std::string shortId(std::string_view id) {
  return std::string(id.substr(0, 12));
}

}  // namespace hull::engine
