// `since` and `until` of logs and events: seconds since 1970 with an optional fraction, or RFC
// 3339. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hull::engine::api {

std::optional<int64_t> timeQuery(const std::string& text);  // ns; nullopt: not given, or 0

}  // namespace hull::engine::api
