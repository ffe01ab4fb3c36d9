// Shell completion: small scripts for bash, zsh and fish that ask `hull __complete` for the words
// that may follow. The commands and options are the parser's own; names come from the engine, if
// one is there (none is started for it).
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <string>
#include <vector>

namespace hull::cli {

// Throws kInvalidArgument for another shell.
std::string completionScript(const std::string& shell);

// Names of a kind: "CONTAINER", "IMAGE", "NETWORK", "VOLUME", "CONTEXT".
using NamesOf = std::function<std::vector<std::string>(const std::string& kind)>;

// What may stand in the place of the last of `words` (which follow "hull"), one "word\tmeaning"
// each.
std::vector<std::string> completions(const CLI::App& app, const std::vector<std::string>& words,
                                     const NamesOf& names_of);

}  // namespace hull::cli
