// Small text helpers of the stage builder's files: keys over parts, words joined for display. Pure.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

namespace hull::build {

// The sha256 over length-prefixed parts: no two lists of parts share a key.
std::string hashOf(std::initializer_list<std::string> parts);
std::string hashOf(const std::vector<std::string>& parts);

std::string joinWords(const std::vector<std::string>& words);

// Known without ARG; in the environment of RUN, but neither in the history nor in the cache's key.
const std::set<std::string>& proxyArgs();

}  // namespace hull::build
