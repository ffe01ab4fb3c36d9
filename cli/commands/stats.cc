// stats: what containers use, once or again and again.
#include <fmt/format.h>
#include <unistd.h>

#include <future>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands/context.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

struct StatsOptions {
  bool all = false, no_stream = false, no_trunc = false;
  std::string format;
  std::vector<std::string> names;
};

const std::vector<Column> kColumns = {{"CONTAINER ID", "ID"},   {"NAME", "Name"},
                                      {"CPU %", "CPUPerc"},     {"MEM USAGE / LIMIT", "MemUsage"},
                                      {"MEM %", "MemPerc"},     {"NET I/O", "NetIO"},
                                      {"BLOCK I/O", "BlockIO"}, {"PIDS", "PIDs"}};

double number(const json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_number()
             ? object[key].get<double>()
             : 0;
}

// docker/cli: calculateCPUPercentUnix.
double cpuPercent(const json& stats) {
  const json& now = stats["cpu_stats"];
  const json& before = stats["precpu_stats"];
  const double cpu =
      number(now["cpu_usage"], "total_usage") - number(before["cpu_usage"], "total_usage");
  const double system = number(now, "system_cpu_usage") - number(before, "system_cpu_usage");
  return system > 0 && cpu > 0 ? cpu / system * number(now, "online_cpus") * 100 : 0;
}

// In binary units, as docker stats shows memory.
std::string binarySize(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.4g}{}", bytes, kUnits[unit]);
}

json statsRow(const json& stats, bool no_trunc) {
  const std::string id = stats.value("id", ""), name = stats.value("name", "");
  const json& memory = stats["memory_stats"];
  const json details = memory.value("stats", json::object());
  // Pages that would be given up at once are not use (docker/cli does the same).
  const double used = std::max(0.0, number(memory, "usage") - number(details, "inactive_file"));
  const double limit = number(memory, "limit");
  double received = 0, sent = 0, read = 0, written = 0;
  const json networks = stats.value("networks", json::object());
  for (const auto& [interface, usage] : networks.items()) {
    received += number(usage, "rx_bytes");
    sent += number(usage, "tx_bytes");
  }
  const json block = stats["blkio_stats"].value("io_service_bytes_recursive", json());
  if (block.is_array()) {
    for (const json& item : block) {
      (item.value("op", "") == "read" ? read : written) += number(item, "value");
    }
  }
  return {{"ID", no_trunc ? id : shortId(id)},
          {"Container", no_trunc ? id : shortId(id)},
          {"Name", name.starts_with('/') ? name.substr(1) : name},
          {"CPUPerc", fmt::format("{:.2f}%", cpuPercent(stats))},
          {"MemUsage", binarySize(used) + " / " + binarySize(limit)},
          {"MemPerc", fmt::format("{:.2f}%", limit > 0 ? used / limit * 100 : 0)},
          {"NetIO", humanSize(received) + " / " + humanSize(sent)},
          {"BlockIO", humanSize(read) + " / " + humanSize(written)},
          {"PIDs", fmt::format("{:.0f}", number(stats["pids_stats"], "current"))}};
}

std::vector<std::string> wantedContainers(Context& context, const StatsOptions& o) {
  if (!o.names.empty()) return o.names;
  std::vector<std::string> ids;
  const json list =
      context.engine().get(withQuery("/containers/json", {{"all", o.all ? "1" : ""}}));
  for (const auto& container : list) ids.push_back(container["Id"]);
  return ids;
}

// One sample of each takes the engine a second: all at once.
std::vector<json> sample(Context& context, const StatsOptions& o) {
  const EngineClient& engine = context.engine();
  std::vector<std::future<json>> answers;
  for (const std::string& name : wantedContainers(context, o)) {
    answers.push_back(std::async(std::launch::async, [&engine, name] {
      return engine.get("/containers/" + urlEncode(name) + "/stats?stream=0");
    }));
  }
  std::vector<json> rows;
  for (auto& answer : answers) {
    try {
      rows.push_back(statsRow(answer.get(), o.no_trunc));
    } catch (const ApiError& error) {
      // One that was removed meanwhile is not missed, unless it was asked for.
      if (!o.names.empty()) throw;
    }
  }
  return rows;
}

void statsCommand(Context& context, const StatsOptions& o) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  for (;;) {
    const std::string text = formatRows(o.format, kColumns, sample(context, o));
    if (terminal && !o.no_stream) std::cout << "\x1b[H\x1b[2J";
    std::cout << text << std::flush;
    if (o.no_stream || !std::cout) return;
  }
}

}  // namespace

void addStatsCommand(CLI::App& app, Context& context) {
  auto o = std::make_shared<StatsOptions>();
  auto* command = app.add_subcommand("stats", "Show what containers use");
  command->add_flag("-a,--all", o->all, "Stopped ones too");
  command->add_flag("--no-stream", o->no_stream, "Once");
  command->add_flag("--no-trunc", o->no_trunc, "Whole ids");
  command->add_option("--format", o->format, "json, table …, or a template");
  command->add_option("CONTAINER", o->names, "All running ones when left out");
  command->callback([&context, o] { statsCommand(context, *o); });
}

}  // namespace hull::cli
