// Go's text/template as docker's --format has it, over JSON: fields, variables, pipelines, if,
// else, range, with, white space trimmed by "{{-" and "-}}", the functions of text/template that
// apply (and, or, not, eq, ne, lt, le, gt, ge, index, len, print, printf, println) and docker's
// (json, split, join, title, lower, upper, pad, truncate). Reference:
// https://pkg.go.dev/text/template. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace hull::cli {

// Throws kInvalidArgument, naming the action and the cause, for what cannot be parsed, a field that
// is not there (in a condition it counts as absent) and arguments that a function does not take.
std::string expandTemplate(std::string_view text, const nlohmann::json& value);

}  // namespace hull::cli
