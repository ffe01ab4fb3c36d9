// What every `inspect` does: looks each name up, prints all that were found as one JSON array or
// one line each by the template, and tells on stderr which were not. Main thread.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands/context.h"

namespace hull::cli {

// `format`: empty (indented JSON), "json" (on one line) or a template.
void printInspected(const std::string& format, const std::vector<nlohmann::json>& found);

// `get` answers with the object of that name, or throws ApiError: the others are still looked up,
// and the exit status is 1.
void inspectEach(Context& context, const std::string& format, const std::vector<std::string>& names,
                 const std::function<nlohmann::json(const std::string&)>& get);

}  // namespace hull::cli
