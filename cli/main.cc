// The hull command: parses, runs one command, and turns failures into Docker's exit statuses.

#include <fmt/format.h>
#include <signal.h>
#include <CLI/CLI.hpp>

#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "cli/client/locate.h"
#include "cli/commands/context.h"
#include "cli/help/catalog.h"
#include "cli/terminal/format.h"
#include "machine/paths.h"

namespace hull::cli {

namespace {

constexpr int kUsageStatus = 125;

const CLI::App* deepestSubcommand(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return at;
}

std::vector<std::string> optionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    for (const auto& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

std::string unknownText(const CLI::App& app, const std::string& word) {
  if (word.starts_with("-")) {
    const std::string flag = word.substr(0, word.find('='));
    const std::string near = nearest(flag, optionNames(app));
    return fmt::format("unknown flag: {}{}", flag,
                       near.empty() ? "" : fmt::format(" (did you mean {}?)", near));
  }
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command->get_name());
  if (commands.empty()) return fmt::format("unexpected argument: {}", word);
  const std::string near = nearest(word, commands);
  return fmt::format("unknown command: {}{}", word,
                     near.empty() ? "" : fmt::format(" (did you mean {}?)", near));
}

std::string fullName(const CLI::App* app) {
  std::string name = app->get_name();
  for (const CLI::App* parent = app->get_parent(); parent; parent = parent->get_parent())
    name = parent->get_name() + " " + name;
  return name;
}

int usageFailure(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = deepestSubcommand(app);
  std::string message = error.what();
  // An unknown subcommand leaves "a subcommand is required" and the word itself as a remainder.
  const auto rest = app.remaining(true);
  if (!rest.empty()) message = unknownText(*command, rest.front());
  std::cerr << fmt::format("hull: {}\nSee '{} --help'.\n", message, fullName(command));
  return kUsageStatus;
}

void addGlobal(CLI::App& app, Context& context) {
  app.set_version_flag("--version", std::string("Hull version ") + HULL_VERSION);
  app.add_option("-H,--host", context.host,
                 "The engine: unix:///path, tcp://host:port or ssh://host")
      ->envname("HULL_HOST");
  app.add_option("-c,--context", context.context, "The context to use")->envname("HULL_CONTEXT");
  app.require_subcommand(1);
  app.set_help_flag("--help", "Show this help");
  // Of an option that is given twice the last one counts, as in docker.
  app.option_defaults()->always_capture_default(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);
}

void dropHelpShortcut(CLI::App& app) {
  app.set_help_flag("--help", "Show this help");
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    dropHelpShortcut(*command);
}

int run(int argc, char** argv) {
  CLI::App app{"Container images, each run in a virtual machine of its own", "hull"};
  Context context;
  addGlobal(app, context);
  addRunCommands(app, context);
  addContainerCommands(app, context);
  addImageCommands(app, context);
  addTransferCommands(app, context);
  addBuildCommand(app, context);
  addSystemCommands(app, context);
  addDoctorCommand(app, context);
  addMachineCommands(app, context);
  addEndpointCommands(app, context);
  addNetworkCommands(app, context);
  addVolumeCommands(app, context);
  dropHelpShortcut(app);
  applyHelp(app);
  try {
    app.parse(argc, argv);
    return context.exit_code;
  } catch (const CLI::CallForHelp&) {
    std::cout << deepestSubcommand(app)->help();
    return 0;
  } catch (const CLI::CallForVersion& version) {
    std::cout << version.what() << "\n";
    return 0;
  } catch (const CLI::ParseError& error) {
    return usageFailure(app, error);
  } catch (const Exit& exit) {
    if (!exit.message.empty()) std::cerr << "hull: " << exit.message << "\n";
    return exit.status;
  } catch (const ApiError& error) {
    std::cerr << "hull: " << error.what() << "\n";
    return 1;
  } catch (const Error& error) {
    std::cerr << "hull: " << error.what() << "\n";
    const CLI::App* command = deepestSubcommand(app);
    return command->get_name() == "run" || command->get_name() == "create" ? kUsageStatus : 1;
  } catch (const std::exception& error) {
    std::cerr << "hull: internal error: " << error.what() << "\n";
    return 1;
  }
}

// `at`, with the socket that `find` says where it names none.
Endpoint located(Endpoint at, std::string (*find)(const std::string& host)) {
  if (at.remote()) return at;
  at.url = find(at.url);
  at.in_machine = at.url == machine::MachinePaths::fromEnvironment().engineSocket();
  return at;
}

}  // namespace

Endpoint Context::endpoint() const {
  if (!host.empty()) return {host, "", ""};
  const Contexts contexts = loadContexts();
  const std::string& name = context.empty() ? contexts.current : context;
  if (name == kDefaultContext) return {};
  const auto found = contexts.named.find(name);
  if (found == contexts.named.end()) {
    throw Error(ErrorKind::kInvalidArgument,
                "context \"" + name + "\": not found (hull context ls lists them)");
  }
  return found->second;
}

const EngineClient& Context::engine() {
  if (!engine_) engine_ = std::make_unique<EngineClient>(located(endpoint(), locateEngine));
  return *engine_;
}

const EngineClient* Context::runningEngine() {
  if (engine_) return engine_.get();
  Endpoint at = located(endpoint(), findRunningEngine);
  if (at.url.empty()) return nullptr;
  engine_ = std::make_unique<EngineClient>(std::move(at));
  return engine_.get();
}

void forEachName(Context& context, const std::vector<std::string>& names,
                 const std::function<void(const std::string&)>& work) {
  for (const auto& name : names) {
    try {
      work(name);
    } catch (const ApiError& error) {
      std::cerr << "Error response from engine: " << error.what() << "\n";
      context.exit_code = 1;
    }
  }
}

bool confirmed(const std::string& warning, bool force) {
  if (force) return true;
  std::cerr << "WARNING! " << warning << "\nAre you sure you want to continue? [y/N] "
            << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y";
}

CLI::Option* addList(CLI::App* command, const std::string& names, std::vector<std::string>& values,
                     const std::string& description) {
  return command->add_option(names, values, description)->allow_extra_args(false);
}

CLI::App* addPrefixCommand(CLI::App& app, const std::string& name, const std::string& description,
                           size_t least_words, std::vector<std::string>& words) {
  CLI::App* command = app.add_subcommand(name, description);
  command->prefix_command();
  command->footer(least_words > 1 ? "Usage: CONTAINER COMMAND [ARG...] follow the options"
                                  : "Usage: IMAGE [COMMAND] [ARG...] follow the options");
  command->parse_complete_callback([command, &words, least_words] {
    words = command->remaining();
    if (!words.empty() && words.front() == "--") words.erase(words.begin());
    if (!words.empty() && words.front().size() > 1 && words.front()[0] == '-') {
      throw Exit{kUsageStatus,
                 fmt::format("{}\nSee '{} --help'.", unknownText(*command, words.front()),
                             fullName(command))};
    }
    if (words.size() < least_words) {
      throw Exit{kUsageStatus, fmt::format("'{}' needs at least {} argument{}\nSee '{} --help'.",
                                           fullName(command), least_words,
                                           least_words == 1 ? "" : "s", fullName(command))};
    }
  });
  return command;
}

}  // namespace hull::cli

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  hull::log::setPart("hull");
  return hull::cli::run(argc, argv);
}
