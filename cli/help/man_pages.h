// Man pages of the same commands, options and examples that --help shows: hull(1) and hull-VERB(1).
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace hull::cli {

std::string manPage(const CLI::App* command);  // troff, man(7)
// Writes a page for `app` and for each shown command below it into `folder`, which is made.
void writeManPages(const CLI::App& app, const std::string& folder);

}  // namespace hull::cli
