#include "cli/help/formatter.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/help/catalog.h"

namespace hull::cli {

namespace {

constexpr size_t kMostLabelWidth = 30;

std::string fullName(const CLI::App* command) {
  const std::string verb = verbOf(command);
  return verb.empty() ? "hull" : "hull " + verb;
}

// The words behind the options of verbs that take a command line.
std::string_view trailingWords(const std::string& verb) {
  static const std::map<std::string_view, std::string_view> kWords{
      {"run", "IMAGE [COMMAND] [ARG...]"},
      {"create", "IMAGE [COMMAND] [ARG...]"},
      {"exec", "CONTAINER COMMAND [ARG...]"}};
  const size_t space = verb.rfind(' ');
  const auto found = kWords.find(space == std::string::npos ? verb : verb.substr(space + 1));
  return found == kWords.end() ? std::string_view() : found->second;
}

std::string commandLines(const std::vector<const CLI::App*>& commands) {
  size_t width = 0;
  for (const CLI::App* command : commands) width = std::max(width, command->get_name().size());
  std::string text;
  for (const CLI::App* command : commands) {
    text += fmt::format("  {:<{}}  {}\n", command->get_name(), width, command->get_description());
  }
  return text;
}

std::string optionLines(const std::vector<const CLI::Option*>& options) {
  size_t width = 0;
  for (const CLI::Option* option : options) {
    const size_t size = optionLabel(option).size();
    if (size <= kMostLabelWidth) width = std::max(width, size);
  }
  std::string text;
  for (const CLI::Option* option : options) {
    const std::string label = optionLabel(option);
    if (label.size() > width) {
      text += fmt::format("  {}\n  {:<{}}  {}\n", label, "", width, option->get_description());
    } else {
      text += fmt::format("  {:<{}}  {}\n", label, width, option->get_description());
    }
  }
  return text;
}

std::string topHelp(const CLI::App* app) {
  std::string text = fmt::format("Usage: {}\n\n{}\n", usageOf(app), app->get_description());
  for (const std::string_view group : {kCommonGroup, kContainerGroup, kImageGroup, kManageGroup}) {
    auto commands = shownCommands(app);
    std::erase_if(commands, [&](const CLI::App* one) { return one->get_group() != group; });
    if (!commands.empty()) text += fmt::format("\n{}:\n{}", group, commandLines(commands));
  }
  return text + fmt::format("\nGlobal options:\n{}\nRun 'hull COMMAND --help' for examples.\n",
                            optionLines(shownOptions(app)));
}

}  // namespace

std::vector<const CLI::Option*> shownOptions(const CLI::App* command) {
  std::vector<const CLI::Option*> options;
  for (const CLI::Option* option : command->get_options()) {
    if (!option->get_positional() && !option->get_group().empty()) options.push_back(option);
  }
  // By their long names, as everyone looks for them.
  std::stable_sort(options.begin(), options.end(), [](const auto* a, const auto* b) {
    const auto key = [](const CLI::Option* option) {
      return option->get_lnames().empty() ? option->get_snames().front()
                                          : option->get_lnames().front();
    };
    return key(a) < key(b);
  });
  return options;
}

std::vector<const CLI::App*> shownCommands(const CLI::App* command) {
  std::vector<const CLI::App*> commands;
  for (const CLI::App* one : command->get_subcommands([](const CLI::App*) { return true; })) {
    if (!one->get_group().empty() && !one->get_description().empty()) commands.push_back(one);
  }
  return commands;
}

std::string optionLabel(const CLI::Option* option) {
  std::string label = option->get_snames().empty() ? "    " : "";
  for (const auto& name : option->get_snames()) label += "-" + name + ", ";
  for (const auto& name : option->get_lnames()) label += "--" + name + ", ";
  label.resize(label.size() - 2);
  if (option->get_items_expected_max() == 0) return label;
  const std::string type = option->get_type_name();
  if (type.starts_with("TEXT") || type.empty()) return label + " string";
  if (type.starts_with("INT") || type.starts_with("UINT")) return label + " number";
  if (type.starts_with("FLOAT")) return label + " decimal";
  return label + " " + type;
}

std::string usageOf(const CLI::App* command) {
  std::string usage = fullName(command);
  if (!shownOptions(command).empty()) usage += " [OPTIONS]";
  if (!shownCommands(command).empty()) return usage + " COMMAND";
  if (const auto words = trailingWords(verbOf(command)); !words.empty()) {
    return usage + " " + std::string(words);
  }
  for (const CLI::Option* option : command->get_options()) {
    if (!option->get_positional()) continue;
    std::string word = option->get_name(true);
    if (option->get_items_expected_max() > 1) word += "...";
    usage += option->get_required() ? " " + word : " [" + word + "]";
  }
  return usage;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
  if (!app->get_parent()) return topHelp(app);
  std::string text = fmt::format("Usage: {}\n\n{}\n", usageOf(app), app->get_description());
  if (const auto commands = shownCommands(app); !commands.empty()) {
    text += "\nCommands:\n" + commandLines(commands);
  }
  if (const auto options = shownOptions(app); !options.empty()) {
    text += "\nOptions:\n" + optionLines(options);
  }
  const std::string verb = verbOf(app);
  const VerbHelp* help = findVerb(verb);
  // "container ls" and the like are explained where they come from.
  if (!help) help = findVerb(app->get_name());
  if (help && !help->examples.empty()) {
    text += "\nExamples:\n";
    for (const Example& example : help->examples) {
      text += fmt::format("  {}\n      {}\n", example.command, example.meaning);
    }
  }
  return text;
}

}  // namespace hull::cli
