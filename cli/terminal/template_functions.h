// The functions of a template (template.h), and how a value is written. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hull::cli {

// As Go's fmt prints it: [a b], map[k:v], <no value>.
std::string templateText(const nlohmann::json& value);

// Not empty: neither false, 0, "", null, nor a list or map without elements.
bool isTrue(const nlohmann::json& value);

// Throws as badTemplate() does, for `action`.
nlohmann::json callTemplateFunction(std::string_view action, const std::string& name,
                                    const std::vector<nlohmann::json>& arguments);

}  // namespace hull::cli
