// volume: ls, create, inspect, rm, prune.

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/client/filters.h"
#include "cli/client/key_values.h"
#include "cli/commands/context.h"
#include "cli/commands/inspect.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string volumePath(const std::string& name) {
  return "/volumes/" + urlEncode(name);
}

std::string labelsText(const json& volume) {
  std::string text;
  if (!volume.contains("Labels") || !volume["Labels"].is_object()) return text;
  for (const auto& [name, value] : volume["Labels"].items()) {
    text += (text.empty() ? "" : ",") + name + "=" + value.get<std::string>();
  }
  return text;
}

struct ListOptions {
  bool quiet = false;
  std::string format;
  std::vector<std::string> filters;
};

void listCommand(Context& context, const ListOptions& o) {
  const json answer =
      context.engine().get(withQuery("/volumes", {{"filters", filtersQuery(o.filters)}}));
  std::vector<json> rows;
  for (const auto& volume : answer.at("Volumes")) {
    rows.push_back({{"Driver", volume["Driver"]},
                    {"Name", volume["Name"]},
                    {"Mountpoint", volume["Mountpoint"]},
                    {"Scope", volume["Scope"]},
                    {"Labels", labelsText(volume)}});
    if (o.quiet) std::cout << volume["Name"].get<std::string>() << "\n";
  }
  if (o.quiet) return;
  std::cout << formatRows(o.format, {{"DRIVER", "Driver"}, {"VOLUME NAME", "Name"}}, rows);
}

struct CreateOptions {
  std::string name, name_option, driver = "local";
  std::vector<std::string> labels, options;
};

void createCommand(Context& context, const CreateOptions& o) {
  if (!o.name.empty() && !o.name_option.empty()) {
    throw Exit{1,
               "conflicting options: cannot specify a volume-name through both --name and as a "
               "positional arg"};
  }
  const json made =
      context.engine().post("/volumes/create", json{{"Name", o.name + o.name_option},
                                                    {"Driver", o.driver},
                                                    {"Labels", keyValues(o.labels)},
                                                    {"DriverOpts", keyValues(o.options)}});
  std::cout << made.at("Name").get<std::string>() << "\n";
}

void removeCommand(Context& context, bool force, const std::vector<std::string>& names) {
  forEachName(context, names, [&](const std::string& name) {
    context.engine().call("DELETE", volumePath(name) + (force ? "?force=1" : ""));
    std::cout << name << "\n";
  });
}

struct PruneOptions {
  bool all = false, force = false;
  std::vector<std::string> filters;
};

void pruneCommand(Context& context, const PruneOptions& o) {
  const std::string what = o.all ? "all" : "anonymous";
  if (!confirmed("This will remove " + what + " volumes not used by at least one container.",
                 o.force)) {
    return;
  }
  std::vector<std::string> filters = o.filters;
  if (o.all) filters.emplace_back("all=true");
  const json pruned = context.engine().post(
      withQuery("/volumes/prune", {{"filters", filtersQuery(filters)}}), json());
  const json& deleted = pruned.at("VolumesDeleted");
  if (!deleted.empty()) {
    std::cout << "Deleted Volumes:\n";
    for (const auto& name : deleted) std::cout << name.get<std::string>() << "\n";
    std::cout << "\n";
  }
  std::cout << "Total reclaimed space: " << humanSize(pruned.value("SpaceReclaimed", 0.0)) << "\n";
}

void addCreate(CLI::App* group, Context& context) {
  auto o = std::make_shared<CreateOptions>();
  auto* create = group->add_subcommand("create", "Create a volume");
  create->add_option("VOLUME", o->name, "Its name; a random one when there is none");
  create->add_option("--name", o->name_option, "Its name, as older clients gave it");
  create->add_option("-d,--driver", o->driver,
                     "local: a folder; disk: an ext4 disk of its own size");
  addList(create, "-o,--opt", o->options,
          "Driver option: size=10g (disk); type=none, o=bind, device=/path (local)");
  addList(create, "--label", o->labels, "Label K=V");
  create->callback([&context, o] { createCommand(context, *o); });
}

}  // namespace

void addVolumeCommands(CLI::App& app, Context& context) {
  CLI::App* group = app.add_subcommand("volume", "Volumes: files that outlive containers");
  group->require_subcommand(1);
  addCreate(group, context);

  auto l = std::make_shared<ListOptions>();
  auto* list = group->add_subcommand("ls", "List volumes");
  list->alias("list");
  list->add_flag("-q,--quiet", l->quiet, "Names only");
  list->add_option("--format", l->format, "Template for each line, or json");
  addList(list, "-f,--filter", l->filters, "Filter: name, driver, label=K=V, dangling=true");
  list->callback([&context, l] { listCommand(context, *l); });

  struct Names {
    std::vector<std::string> names;
    std::string format;
    bool force = false;
  };
  auto i = std::make_shared<Names>();
  auto* inspect = group->add_subcommand("inspect", "Show volumes in detail");
  inspect->add_option("VOLUME", i->names)->required();
  inspect->add_option("-f,--format", i->format, "Template");
  inspect->callback([&context, i] {
    inspectEach(context, i->format, i->names,
                [&](const std::string& name) { return context.engine().get(volumePath(name)); });
  });

  auto r = std::make_shared<Names>();
  auto* remove = group->add_subcommand("rm", "Remove volumes that no container uses");
  remove->alias("remove");
  remove->add_option("VOLUME", r->names)->required();
  remove->add_flag("-f,--force", r->force, "A volume that is not there is no error");
  remove->callback([&context, r] { removeCommand(context, r->force, r->names); });

  auto p = std::make_shared<PruneOptions>();
  auto* prune = group->add_subcommand("prune", "Remove volumes that no container uses");
  prune->add_flag("-a,--all", p->all, "Those with a name, too");
  prune->add_flag("-f,--force", p->force, "Do not ask");
  addList(prune, "--filter", p->filters, "Filter, like label=K=V");
  prune->callback([&context, p] { pruneCommand(context, *p); });
}

}  // namespace hull::cli
