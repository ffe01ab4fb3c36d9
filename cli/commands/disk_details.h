// hull system df -v: what of each kind takes how much, as docker shows it. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace hull::cli {

// The tables of GET /system/df's answer.
std::string diskDetails(const nlohmann::json& usage);

}  // namespace hull::cli
