#include "cli/help/completion.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "cli/help/catalog.h"
#include "cli/help/formatter.h"

namespace hull::cli {

namespace {

constexpr const char* kBash = R"(# bash completion for hull
_hull() {
  local line IFS=$'\n'
  COMPREPLY=()
  for line in $(hull __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    COMPREPLY+=("${line%%$'\t'*}")
  done
  [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default
  __ltrimcolon_completions "$2" 2>/dev/null || true
}
complete -F _hull hull
)";

constexpr const char* kZsh = R"(#compdef hull
_hull() {
  local -a lines
  local line
  for line in "${(@f)$(hull __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n $line ]] && lines+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  if (( ${#lines} )); then _describe hull lines; else _files; fi
}
compdef _hull hull
)";

constexpr const char* kFish = R"(# fish completion for hull
function __hull_complete
  set -l words (commandline -opc) (commandline -ct)
  hull __complete -- $words[2..-1] 2>/dev/null
end
complete -c hull -a '(__hull_complete)'
)";

const CLI::Option* optionNamed(const CLI::App* command, const std::string& word) {
  for (const CLI::Option* option : command->get_options()) {
    if (option->check_name(word)) return option;
  }
  return nullptr;
}

bool takesValue(const CLI::Option* option) {
  return option && option->get_items_expected_max() != 0;
}

const CLI::App* commandNamed(const CLI::App* parent, const std::string& word) {
  for (const CLI::App* one : parent->get_subcommands([](const CLI::App*) { return true; })) {
    if (one->get_name() == word) return one;
  }
  return nullptr;
}

// What was typed so far, walked along the commands.
struct Position {
  const CLI::App* command;
  const CLI::Option* open_option = nullptr;  // its value is being typed
  size_t arguments = 0;                      // before the word that is being typed
};

Position walk(const CLI::App& app, const std::vector<std::string>& words) {
  Position at{&app};
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (at.open_option) {
      at.open_option = nullptr;
      continue;
    }
    if (word.size() > 1 && word[0] == '-') {
      const CLI::Option* option = optionNamed(at.command, word.substr(0, word.find('=')));
      if (takesValue(option) && word.find('=') == std::string::npos) at.open_option = option;
      continue;
    }
    const CLI::App* below = at.arguments == 0 ? commandNamed(at.command, word) : nullptr;
    if (below) {
      at.command = below;
    } else {
      ++at.arguments;
    }
  }
  return at;
}

// The kind of name that an argument or an option's value is.
std::string kindOf(const Position& at) {
  static const std::map<std::string, std::string> kOfOptions{{"network", "NETWORK"},
                                                             {"net", "NETWORK"},
                                                             {"context", "CONTEXT"},
                                                             {"volumes-from", "CONTAINER"}};
  if (at.open_option) {
    for (const auto& name : at.open_option->get_lnames()) {
      if (const auto found = kOfOptions.find(name); found != kOfOptions.end()) return found->second;
    }
    return {};
  }
  const std::string verb = at.command->get_name();
  if (verb == "run" || verb == "create") return at.arguments == 0 ? "IMAGE" : "";
  if (verb == "exec") return at.arguments == 0 ? "CONTAINER" : "";
  std::vector<const CLI::Option*> positionals;
  for (const CLI::Option* option : at.command->get_options()) {
    if (option->get_positional()) positionals.push_back(option);
  }
  if (positionals.empty()) return {};
  const CLI::Option* place = positionals[std::min(at.arguments, positionals.size() - 1)];
  if (at.arguments >= positionals.size() && place->get_items_expected_max() <= 1) return {};
  const std::string name = place->get_name(true);
  if (name == "SOURCE_IMAGE" || name == "SOURCE") return "IMAGE";
  return name == "NAME" && verb == "inspect" ? "CONTAINER" : name;
}

}  // namespace

std::string completionScript(const std::string& shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  if (shell == "fish") return kFish;
  throw Error(ErrorKind::kInvalidArgument,
              "completion for \"" + shell + "\": there are bash, zsh and fish");
}

std::vector<std::string> completions(const CLI::App& app, const std::vector<std::string>& words,
                                     const NamesOf& names_of) {
  const std::string last = words.empty() ? "" : words.back();
  const Position at = walk(app, words);
  std::vector<std::string> found;
  const auto add = [&](const std::string& word, const std::string& meaning) {
    if (word.starts_with(last)) found.push_back(meaning.empty() ? word : word + "\t" + meaning);
  };
  if (!at.open_option && last.starts_with('-')) {
    for (const CLI::Option* option : shownOptions(at.command)) {
      for (const auto& name : option->get_lnames()) add("--" + name, option->get_description());
      if (option->get_lnames().empty()) {
        for (const auto& name : option->get_snames()) add("-" + name, option->get_description());
      }
    }
    return found;
  }
  if (!at.open_option && at.arguments == 0) {
    for (const CLI::App* command : shownCommands(at.command)) {
      add(command->get_name(), command->get_description());
    }
    if (!found.empty()) return found;
  }
  const std::string kind = kindOf(at);
  if (!kind.empty()) {
    for (const std::string& name : names_of(kind)) add(name, "");
  }
  return found;
}

}  // namespace hull::cli
