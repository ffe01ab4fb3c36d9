#include "cli/help/man_pages.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "cli/help/catalog.h"
#include "cli/help/formatter.h"

namespace hull::cli {

namespace {

// man(7): a backslash begins an escape, a leading dot or quote a request, "-" is a hyphen.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (out.empty() && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string pageName(const CLI::App* command) {
  std::string name = verbOf(command);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name.empty() ? "hull" : "hull-" + name;
}

std::string titleOf(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

void addExamples(const CLI::App* command, std::string& page) {
  const VerbHelp* help = findVerb(verbOf(command));
  if (!help) help = findVerb(command->get_name());
  if (!help || help->examples.empty()) return;
  page += ".SH EXAMPLES\n";
  for (const Example& example : help->examples) {
    page += fmt::format(".TP\n.B {}\n{}\n", escaped(example.command), escaped(example.meaning));
  }
}

void writeBelow(const CLI::App* command, const std::string& folder) {
  writeFileAtomic(folder + "/" + pageName(command) + ".1", manPage(command));
  for (const CLI::App* below : shownCommands(command)) writeBelow(below, folder);
}

}  // namespace

std::string manPage(const CLI::App* command) {
  const std::string name = pageName(command);
  std::string page = fmt::format(".TH {} 1 \"\" \"Hull {}\" \"Hull\"\n.SH NAME\n{} \\- {}\n",
                                 escaped(titleOf(name)), HULL_VERSION, escaped(name),
                                 escaped(command->get_description()));
  page += fmt::format(".SH SYNOPSIS\n.B {}\n", escaped(usageOf(command)));
  if (const auto commands = shownCommands(command); !commands.empty()) {
    page += ".SH COMMANDS\n";
    for (const CLI::App* below : commands) {
      page += fmt::format(".TP\n.BR {} (1)\n{}\n", escaped(pageName(below)),
                          escaped(below->get_description()));
    }
  }
  if (const auto options = shownOptions(command); !options.empty()) {
    page += ".SH OPTIONS\n";
    for (const CLI::Option* option : options) {
      std::string label = optionLabel(option);
      label.erase(0, label.find_first_not_of(' '));
      page += fmt::format(".TP\n.B {}\n{}\n", escaped(label), escaped(option->get_description()));
    }
  }
  if (!command->get_parent()) {
    page +=
        ".SH EXIT STATUS\n0: done. 1: the engine refused. 125: wrong usage, or the container could "
        "not be made. 126, 127: its program cannot be executed, or is not there. run and exec end "
        "with the program's own status.\n"
        ".SH ENVIRONMENT\n.TP\n.B HULL_HOST\nThe engine to talk to, as --host.\n"
        ".TP\n.B HULL_CONTEXT\nThe context to use, as --context.\n"
        ".TP\n.B NO_COLOR\nIf set, nothing is coloured and progress is printed as plain lines.\n";
  }
  addExamples(command, page);
  if (command->get_parent()) page += ".SH SEE ALSO\n.BR hull (1)\n";
  return page;
}

void writeManPages(const CLI::App& app, const std::string& folder) {
  makeDirectories(folder, 0755);
  writeBelow(&app, folder);
}

}  // namespace hull::cli
