// How a build finds what its client gave for it beforehand (build_agents.h, build_secrets.h): a
// session that nobody guesses, and a name in it. Values.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace hull::engine::api {

inline constexpr size_t kMinBuildSessionDigits = 32;
inline constexpr size_t kMaxBuildSessionBytes = 128;  // and of a name in it

using BuildSessionKey = std::pair<std::string, std::string>;  // session, name

// Throws kInvalidArgument, naming `what`, for a session that is not hexadecimal and long, or a name
// that is none.
void checkBuildSessionKey(const BuildSessionKey& key, const std::string& what);

}  // namespace hull::engine::api
