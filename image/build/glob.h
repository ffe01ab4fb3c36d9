// Path component patterns of .dockerignore and COPY (Go's filepath.Match): * ? [class] and \. Pure.
#pragma once

#include <string_view>

namespace hull::build {

bool isGlob(std::string_view pattern);
bool isValidGlob(std::string_view pattern);  // classes closed and not empty, no \ at the end
bool globMatches(std::string_view pattern, std::string_view name);  // one component

}  // namespace hull::build
