// hull-machine: the machine without the rest of the client. Scripts, tests and benchmarks use it
// (`run`), and it can be the machine's own supervisor and agent.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "base/error.h"
#include "machine/agent.h"
#include "machine/detect.h"
#include "machine/machine.h"

namespace {

using hull::machine::MachineOptions;

void show(const std::string& line) {
  std::cerr << "machine: " << line << std::endl;
}

int printStatus(const MachineOptions& options) {
  const auto status = hull::machine::status(options);
  std::cout << "phase: " << toString(status.phase) << "\n";
  if (status.supervisor_pid != 0) {
    std::cout << "pid: " << status.supervisor_pid << "\nmemory: " << status.memory_mib
              << " MiB\nengine: " << (status.engine ? options.paths.engineSocket() : "none")
              << "\nconnections: " << status.connections << "\n";
  }
  if (status.phase != hull::machine::MachinePhase::kAbsent) {
    std::cout << "disk: " << (status.disk_used_bytes >> 20) << " MiB used, "
              << options.paths.dataDisk() << "\nconsole: " << options.paths.consoleLog() << "\n";
  }
  if (!status.payload_current) std::cout << "programs: older than those here; stop and start\n";
  return 0;
}

int printDetection() {
  const auto detection = hull::machine::detect();
  std::cout << toString(detection.result) << ": " << detection.explanation << "\n";
  if (!detection.next_step.empty()) std::cout << "next: " << detection.next_step << "\n";
  return detection.usable() ? 0 : 1;
}

void addOptions(CLI::App& command, MachineOptions& options) {
  command.add_option("--memory", options.memory_mib, "MiB of memory");
  command.add_option("--disk", options.disk_gib, "GiB of a new data disk (sparse)");
  command.add_option("--payload", options.payload_directory, "folder of hulld, hull-vmm, vmlinux");
  command.add_option("--image", options.image_directory, "folder made by scripts/machine-image");
  command.add_option("--with", options.image_packages, "Debian packages more in the image");
}

int dispatch(int argc, char** argv) {
  CLI::App app{"The emulated KVM host", "hull-machine"};
  app.require_subcommand(1);
  MachineOptions options;
  options.supervise_arguments = {"supervise"};
  options.agent_arguments = {"agent"};
  hull::machine::ExecRequest request;
  std::string state, channel;

  auto* init = app.add_subcommand("init", "make the image and the disk");
  auto* start = app.add_subcommand("start", "start it, and wait until it is ready");
  for (auto* command : {init, start}) addOptions(*command, options);
  auto* stop = app.add_subcommand("stop", "power it off");
  auto* status = app.add_subcommand("status", "what it is doing");
  auto* rm = app.add_subcommand("rm", "stop it and delete its disks");
  auto* run = app.add_subcommand("run", "run a command in it");
  run->add_option("-e,--env", request.environment, "K=V")->allow_extra_args(false);
  run->add_option("-w,--workdir", request.working_directory, "working directory");
  run->add_option("command", request.arguments, "command and arguments")->required();
  run->positionals_at_end();
  auto* detect = app.add_subcommand("detect", "can this host run virtual machines?");
  auto* supervise = app.add_subcommand("supervise", "(internal)")->group("");
  supervise->add_option("state", state)->required();
  auto* agent = app.add_subcommand("agent", "(internal)")->group("");
  agent->add_option("channel", channel);
  CLI11_PARSE(app, argc, argv);

  if (*agent) return hull::machine::runAgent(channel);
  if (*supervise) {
    hull::machine::MachinePaths paths;
    paths.state = state;
    return hull::machine::supervise(paths);
  }
  if (*detect) return printDetection();
  options.paths = hull::machine::MachinePaths::fromEnvironment();
  if (*init) hull::machine::init(options, show);
  if (*start) hull::machine::start(options, show);
  if (*stop) hull::machine::stop(options.paths, show);
  if (*rm) hull::machine::remove(options.paths, show);
  if (*status) return printStatus(options);
  if (*run) return hull::machine::run(options.paths, request);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  try {
    return dispatch(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "hull-machine: " << error.what() << std::endl;
    return 125;
  }
}
