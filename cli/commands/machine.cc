// machine: the emulated host for machines without hardware virtualization.

#include "machine/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/client/machine_options.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"
#include "cli/terminal/template.h"
#include "machine/agent.h"

namespace hull::cli {

using nlohmann::json;

machine::MachineOptions machineOptions() {
  machine::MachineOptions options;
  options.paths = machine::MachinePaths::fromEnvironment();
  options.supervise_arguments = {"machine", "supervise"};
  options.agent_arguments = {"machine", "agent"};
  return options;
}

void showMachineProgress(const std::string& line) {
  std::cerr << "hull machine: " << line << std::endl;
}

namespace {

void addSizes(CLI::App* command, const std::shared_ptr<machine::MachineOptions>& options) {
  command->add_option("--memory", options->memory_mib, "Memory of the machine in MiB");
  command->add_option("--disk", options->disk_gib, "Size of its data disk in GiB (sparse)");
  command->add_option("--with", options->image_packages, "More Debian packages in it: one,two");
}

void addLifecycle(CLI::App& group) {
  auto options = std::make_shared<machine::MachineOptions>(machineOptions());
  auto* init = group.add_subcommand("init", "Make the machine's image and disk");
  addSizes(init, options);
  init->callback([options] { machine::init(*options, showMachineProgress); });

  auto* start = group.add_subcommand("start", "Start it, making what is missing");
  addSizes(start, options);
  start->callback([options] {
    machine::start(*options, showMachineProgress);
    std::cout << machine::engineSocket(options->paths) << "\n";
  });

  group.add_subcommand("stop", "Stop it")->callback([options] {
    machine::stop(options->paths, showMachineProgress);
  });

  auto force = std::make_shared<bool>(false);
  auto* remove =
      group.add_subcommand("rm", "Stop it and delete its disk, images and containers with it");
  remove->add_flag("-f,--force", *force, "Do not ask");
  remove->callback([options, force] {
    if (!*force && isatty(STDIN_FILENO)) {
      std::cerr << "WARNING! This deletes the machine with all its images and containers. "
                   "Continue? [y/N] ";
      std::string answer;
      std::getline(std::cin, answer);
      if (answer != "y" && answer != "Y") return;
    }
    machine::remove(options->paths, showMachineProgress);
  });
}

void addStatus(CLI::App& group, Context& context) {
  auto format = std::make_shared<std::string>();
  auto* command = group.add_subcommand("status", "Say whether it runs");
  command->add_option("--format", *format, "json or a template");
  command->callback([&context, format] {
    const machine::MachineOptions options = machineOptions();
    const machine::MachineStatus status = machine::status(options);
    const json object = {{"State", machine::toString(status.phase)},
                         {"Engine", status.engine},
                         {"EngineSocket", options.paths.engineSocket()},
                         {"MemoryMiB", status.memory_mib},
                         {"DiskUsed", humanSize(static_cast<double>(status.disk_used_bytes))},
                         {"Connections", status.connections},
                         {"ProgramsCurrent", status.payload_current},
                         {"Supervisor", status.supervisor_pid}};
    if (!format->empty()) {
      std::cout << (*format == "json" ? object.dump() : expandTemplate(*format, object)) << "\n";
    } else {
      for (const auto& [key, value] : object.items()) {
        std::cout << fmt::format("{:<16} {}\n", key + ":",
                                 value.is_string() ? value.get<std::string>() : value.dump());
      }
    }
    context.exit_code = status.phase == machine::MachinePhase::kReady ? 0 : 1;
  });
}

void addRun(CLI::App& group, Context& context) {
  auto words = std::make_shared<std::vector<std::string>>();
  auto* command = addPrefixCommand(group, "run", "Run a command in the machine", 1, *words);
  command->callback([&context, words] {
    context.exit_code = machine::run(machine::MachinePaths::fromEnvironment(), {*words, {}, ""});
  });
}

}  // namespace

void addMachineCommands(CLI::App& app, Context& context) {
  auto* group = app.add_subcommand(
      "machine", "The emulated host for machines without hardware virtualization");
  group->require_subcommand(1);
  addLifecycle(*group);
  addStatus(*group, context);
  addRun(*group, context);
  auto state = std::make_shared<std::string>();
  auto* supervise = group->add_subcommand("supervise", "");
  supervise->group("")->add_option("STATE", *state)->required();
  supervise->callback([&context, state] {
    machine::MachinePaths paths = machine::MachinePaths::fromEnvironment();
    paths.state = *state;
    context.exit_code = machine::supervise(paths);
  });
  auto channel = std::make_shared<std::string>();
  auto* agent = group->add_subcommand("agent", "");
  agent->group("")->add_option("CHANNEL", *channel);
  agent->callback([&context, channel] { context.exit_code = machine::runAgent(*channel); });
}

}  // namespace hull::cli
