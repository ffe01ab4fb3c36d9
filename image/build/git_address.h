// Addresses of git repositories, as ADD, contexts and .gitmodules name them. They end up on git's
// command line: what could be an option there, or run a program, is no address. Pure; untrusted.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hull::build {

// "https://host/repo.git#ref:folder", "git@host:repo.git", "ssh://…", "git://…".
struct GitAddress {
  std::string repository;
  std::string reference;  // branch, tag or commit; empty: the repository's HEAD
  std::string folder;     // cleaned; empty: all of it
};
// nullopt when the text names no git repository. Throws kInvalidArgument when it does, badly.
std::optional<GitAddress> parseGitAddress(std::string_view text);

// Where a submodule is that the .gitmodules of `parent` gives `address`; relative ones are seen
// from the parent. Throws kInvalidArgument for what is not fetched. (file:// passes: whether git
// may use it, as in tests, is GitOptions::protocols' business.)
std::string submoduleRepository(const std::string& parent, std::string_view address);

}  // namespace hull::build
