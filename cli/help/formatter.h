// How help looks: `hull --help` on one screen, grouped, a line per verb; a verb's own help with its
// usage, options in one column, and examples.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>
#include <string>
#include <vector>

namespace hull::cli {

class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
};

// "hull run [OPTIONS] IMAGE [COMMAND] [ARG...]"
std::string usageOf(const CLI::App* command);
// "-m, --memory bytes": short names first; a word for the value when the option takes one.
std::string optionLabel(const CLI::Option* option);
std::vector<const CLI::Option*> shownOptions(
    const CLI::App* command);  // no positionals, none hidden
std::vector<const CLI::App*> shownCommands(const CLI::App* command);

}  // namespace hull::cli
