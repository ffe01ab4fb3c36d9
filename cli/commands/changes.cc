// diff, commit, update: what became of a container, and what shall become of it.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands/context.h"
#include "cli/commands/device_rates.h"
#include "cli/terminal/format.h"
#include "image/types/reference.h"

namespace hull::cli {

using nlohmann::json;

namespace {

void addDiff(CLI::App& app, Context& context) {
  auto name = std::make_shared<std::string>();
  auto* command =
      app.add_subcommand("diff", "Show what a container added (A), changed (C) and deleted (D)");
  command->add_option("CONTAINER", *name)->required();
  command->callback([&context, name] {
    const json changes = context.engine().get("/containers/" + urlEncode(*name) + "/changes");
    if (!changes.is_array()) return;
    for (const json& change : changes) {
      const int kind = change.value("Kind", 0);
      std::cout << (kind == 1   ? 'A'
                    : kind == 2 ? 'D'
                                : 'C')
                << ' ' << change.value("Path", "") << '\n';
    }
  });
}

void addCommit(CLI::App& app, Context& context) {
  struct Options {
    std::string author, message, container, name;
    std::vector<std::string> changes;
    bool pause = true;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("commit", "Make an image of a container's files");
  command->add_option("-a,--author", o->author, "Author, like \"Ada <ada@example.com>\"");
  command->add_option("-m,--message", o->message, "Commit message");
  addList(command, "-c,--change", o->changes,
          "Apply a Dockerfile instruction, like 'CMD [\"sh\"]'");
  command->add_flag("-p,--pause,!--no-pause", o->pause, "Pause the container meanwhile");
  command->add_option("CONTAINER", o->container)->required();
  command->add_option("NAME", o->name, "Name of the image");
  command->callback([&context, o] {
    std::vector<std::pair<std::string, std::string>> query = {{"container", o->container},
                                                              {"author", o->author},
                                                              {"comment", o->message},
                                                              {"pause", o->pause ? "1" : "0"}};
    if (!o->name.empty()) {
      const image::Reference name = image::Reference::parse(o->name);
      query.emplace_back("repo", name.name());
      query.emplace_back("tag", name.tag);
    }
    for (const auto& change : o->changes) query.emplace_back("changes", change);
    std::cout << context.engine().post(withQuery("/commit", query), json())["Id"].get<std::string>()
              << "\n";
  });
}

void addUpdate(CLI::App& app, Context& context) {
  struct Options {
    std::string memory, reservation, swap, restart, cpuset;
    DeviceRates device_rates;
    double cpus = 0;
    int64_t shares = 0, quota = 0, period = 0, pids = 0;
    std::vector<std::string> names;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("update", "Change limits and restart policy of containers");
  command->add_option("-m,--memory", o->memory, "Memory limit, like 512m");
  command->add_option("--memory-reservation", o->reservation, "Memory that is kept for it");
  command->add_option("--memory-swap", o->swap, "Accepted for compatibility: there is no swap");
  command->add_option("--cpus", o->cpus, "Number of CPUs");
  command->add_option("-c,--cpu-shares", o->shares, "Weight among containers, 1024 by default");
  command->add_option("--cpu-quota", o->quota, "Microseconds of each period");
  command->add_option("--cpu-period", o->period, "Period in microseconds");
  command->add_option("--cpuset-cpus", o->cpuset, "CPUs of the host it may use, like 0-2");
  addDeviceRateOptions(command, o->device_rates);
  command->add_option("--pids-limit", o->pids, "Most processes; -1: no limit");
  command->add_option("--restart", o->restart,
                      "Restart policy: no, always, unless-stopped, on-failure[:N]");
  command->add_option("CONTAINER", o->names)->required();
  command->callback([&context, o] {
    json body = json::object();
    if (!o->memory.empty()) body["Memory"] = parseSize(o->memory, "-m, --memory");
    if (!o->reservation.empty()) {
      body["MemoryReservation"] = parseSize(o->reservation, "--memory-reservation");
    }
    if (o->cpus > 0) body["NanoCpus"] = static_cast<int64_t>(o->cpus * 1e9);
    const std::pair<const char*, int64_t> numbers[] = {{"CpuShares", o->shares},
                                                       {"CpuQuota", o->quota},
                                                       {"CpuPeriod", o->period},
                                                       {"PidsLimit", o->pids}};
    for (const auto& [key, value] : numbers) {
      if (value != 0) body[key] = value;
    }
    addDeviceRates(o->device_rates, body);
    if (!o->cpuset.empty()) body["CpusetCpus"] = o->cpuset;
    if (!o->restart.empty()) body["RestartPolicy"] = restartPolicy(o->restart);
    if (body.empty()) throw Exit{1, "you must provide one or more flags when using this command"};
    forEachName(context, o->names, [&](const std::string& name) {
      const json answer = context.engine().post("/containers/" + urlEncode(name) + "/update", body);
      for (const auto& warning : answer.value("Warnings", json::array())) {
        std::cerr << "WARNING: " << warning.get<std::string>() << "\n";
      }
      std::cout << name << "\n";
    });
  });
}

}  // namespace

void addChangeCommands(CLI::App& app, Context& context) {
  addDiff(app, context);
  addCommit(app, context);
  addUpdate(app, context);
}

}  // namespace hull::cli
