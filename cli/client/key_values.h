// "KEY=VALUE" options as the engine's JSON objects have them. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace hull::cli {

// {"KEY":"VALUE",…}; the last of a key counts, and a key alone has an empty value.
nlohmann::json keyValues(const std::vector<std::string>& items);

}  // namespace hull::cli
