// What help, completions and man pages know of each verb beyond its options: the group it is listed
// in, how it is used, examples. Data, and pure functions over it.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hull::cli {

struct Example {
  std::string_view command;
  std::string_view meaning;
};

struct VerbHelp {
  std::string_view verb;   // "run", "machine start"
  std::string_view group;  // of `hull --help`; empty for verbs below others
  std::vector<Example> examples;
};

inline constexpr std::string_view kCommonGroup = "Common commands";
inline constexpr std::string_view kContainerGroup = "Containers";
inline constexpr std::string_view kImageGroup = "Images";
inline constexpr std::string_view kManageGroup = "Management";

const std::vector<VerbHelp>& verbCatalog();
const VerbHelp* findVerb(std::string_view verb);  // null when there is nothing to say

// "machine start" of the command so named, without the program's own name.
std::string verbOf(const CLI::App* command);

// Sorts the top-level verbs into their groups and gives every command its formatter.
void applyHelp(CLI::App& app);

}  // namespace hull::cli
