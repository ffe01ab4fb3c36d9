// Finding the program a process is to run, as Docker does and in its words. Works on the root
// directory and working directory of the caller: it runs in the child, inside the container.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hull::guest {

inline constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// The value of `name` in "K=V" strings (the last one wins); nullptr when absent.
const char* findVariable(const std::vector<std::string>& environment, std::string_view name);

// A name with a '/' is taken as it is, others are looked up in the environment's PATH. Throws
// kNotFound (exit code 127) or kForbidden (126).
std::string findProgram(const std::string& name, const std::vector<std::string>& environment);

}  // namespace hull::guest
