// system df, system prune: what takes disk space, and getting it back.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/client/filters.h"
#include "cli/commands/context.h"
#include "cli/commands/disk_details.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

struct Kind {
  std::string title;
  size_t total = 0, active = 0;
  double bytes = 0, reclaimable = 0;

  json row() const {
    const double share = bytes > 0 ? reclaimable / bytes * 100 : 0;
    return {{"Type", title},
            {"TotalCount", std::to_string(total)},
            {"Active", std::to_string(active)},
            {"Size", humanSize(bytes)},
            {"Reclaimable", fmt::format("{} ({:.0f}%)", humanSize(reclaimable), share)}};
  }
};

json listOf(const json& usage, const char* key) {
  return usage.contains(key) && usage[key].is_array() ? usage[key] : json::array();
}

Kind imageKind(const json& usage) {
  Kind kind{"Images", 0, 0, usage.value("LayersSize", 0.0), 0};
  double used = 0;
  for (const json& image : listOf(usage, "Images")) {
    ++kind.total;
    if (image.value("Containers", 0) == 0) continue;
    ++kind.active;
    used += image.value("Size", 0.0);
  }
  kind.reclaimable = std::max(0.0, kind.bytes - used);
  return kind;
}

Kind containerKind(const json& usage) {
  Kind kind{"Containers"};
  for (const json& container : listOf(usage, "Containers")) {
    ++kind.total;
    const double bytes = container.value("SizeRw", 0.0);
    kind.bytes += bytes;
    const std::string state = container.value("State", "");
    if (state == "running" || state == "paused" || state == "restarting") {
      ++kind.active;
    } else {
      kind.reclaimable += bytes;
    }
  }
  return kind;
}

Kind volumeKind(const json& usage) {
  Kind kind{"Local Volumes"};
  for (const json& volume : listOf(usage, "Volumes")) {
    ++kind.total;
    const json data = volume.value("UsageData", json::object());
    const double bytes = std::max(0.0, data.value("Size", 0.0));
    kind.bytes += bytes;
    if (data.value("RefCount", 0) > 0) {
      ++kind.active;
    } else {
      kind.reclaimable += bytes;
    }
  }
  return kind;
}

Kind cacheKind(const json& usage) {
  Kind kind{"Build Cache"};
  for (const json& step : listOf(usage, "BuildCache")) {
    ++kind.total;
    const double bytes = step.value("Size", 0.0);
    kind.bytes += bytes;
    if (step.value("InUse", false)) {
      ++kind.active;
    } else {
      kind.reclaimable += bytes;
    }
  }
  return kind;
}

void diskUsage(Context& context, const std::string& format) {
  const json usage = context.engine().get("/system/df");
  const std::vector<json> rows = {imageKind(usage).row(), containerKind(usage).row(),
                                  volumeKind(usage).row(), cacheKind(usage).row()};
  std::cout << formatRows(format,
                          {{"TYPE", "Type"},
                           {"TOTAL", "TotalCount"},
                           {"ACTIVE", "Active"},
                           {"SIZE", "Size"},
                           {"RECLAIMABLE", "Reclaimable"}},
                          rows);
}

struct PruneOptions {
  bool all = false, force = false, volumes = false;
  std::vector<std::string> filters;
};

void showDeleted(const char* title, const json& result, const char* key) {
  if (!result.contains(key) || !result[key].is_array() || result[key].empty()) return;
  std::cout << title << ":\n";
  for (const json& item : result[key]) {
    if (item.is_string()) {
      std::cout << item.get<std::string>() << "\n";
    } else if (item.contains("Untagged")) {
      std::cout << "untagged: " << item["Untagged"].get<std::string>() << "\n";
    } else {
      std::cout << "deleted: " << item.value("Deleted", "") << "\n";
    }
  }
  std::cout << "\n";
}

void prune(Context& context, const PruneOptions& o) {
  std::string what = "  - all stopped containers\n  - all networks not used by a container\n";
  if (o.volumes) what += "  - all anonymous volumes not used by a container\n";
  what += o.all ? "  - all images without a container\n  - all build cache\n"
                : "  - all images without a name\n  - unused build cache\n";
  if (!confirmed("This will remove:\n" + what, o.force)) return;
  const EngineClient& engine = context.engine();
  const std::string filters = filtersQuery(o.filters);
  double reclaimed = 0;
  const auto run = [&](const std::string& path, std::string query, const char* title,
                       const char* key) {
    const json result = engine.post(withQuery(path, {{"filters", std::move(query)}}), json());
    showDeleted(title, result, key);
    reclaimed += result.value("SpaceReclaimed", 0.0);
  };
  run("/containers/prune", filters, "Deleted Containers", "ContainersDeleted");
  run("/networks/prune", filters, "Deleted Networks", "NetworksDeleted");
  if (o.volumes) run("/volumes/prune", filters, "Deleted Volumes", "VolumesDeleted");
  json image_filters = filters.empty() ? json::object() : json::parse(filters);
  image_filters["dangling"] = {o.all ? "false" : "true"};
  run("/images/prune", image_filters.dump(), "Deleted Images", "ImagesDeleted");
  const json cache = engine.post(
      withQuery("/build/prune", {{"all", o.all ? "1" : ""}, {"filters", filters}}), json());
  reclaimed += cache.value("SpaceReclaimed", 0.0);
  std::cout << "Total reclaimed space: " << humanSize(reclaimed) << "\n";
}

}  // namespace

void addDiskCommands(CLI::App& system, Context& context) {
  auto format = std::make_shared<std::string>();
  auto verbose = std::make_shared<bool>(false);
  auto* df = system.add_subcommand("df", "Show what takes disk space");
  df->add_option("--format", *format, "json, table …, or a template");
  df->add_flag("-v,--verbose", *verbose, "Every image, container, volume and cache");
  df->callback([&context, format, verbose] {
    if (!*verbose) return diskUsage(context, *format);
    if (!format->empty())
      throw Exit{125, "system df: -v has a form of its own; leave --format out"};
    std::cout << diskDetails(context.engine().get("/system/df"));
  });

  auto o = std::make_shared<PruneOptions>();
  auto* command = system.add_subcommand("prune", "Remove what nothing uses");
  command->add_flag("-a,--all", o->all, "Images with names too, when no container uses them");
  command->add_flag("-f,--force", o->force, "Do not ask");
  command->add_flag("--volumes", o->volumes, "Anonymous volumes too");
  addList(command, "--filter", o->filters, "Filter, like until=24h or label=key");
  command->callback([&context, o] { prune(context, *o); });
}

}  // namespace hull::cli
