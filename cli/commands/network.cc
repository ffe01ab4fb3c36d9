// network: ls, create, inspect, rm, prune, connect, disconnect.

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/client/filters.h"
#include "cli/client/key_values.h"
#include "cli/commands/context.h"
#include "cli/commands/inspect.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string networkPath(const std::string& name, const std::string& rest = "") {
  return "/networks/" + urlEncode(name) + rest;
}

struct ListOptions {
  bool quiet = false, no_trunc = false;
  std::string format;
  std::vector<std::string> filters;
};

void listCommand(Context& context, const ListOptions& o) {
  const json networks =
      context.engine().get(withQuery("/networks", {{"filters", filtersQuery(o.filters)}}));
  std::vector<json> rows;
  for (const auto& network : networks) {
    const std::string id = network["Id"];
    rows.push_back({{"ID", o.no_trunc ? id : shortId(id)},
                    {"Name", network["Name"]},
                    {"Driver", network["Driver"]},
                    {"Scope", network["Scope"]},
                    {"Internal", network["Internal"]},
                    {"IPv6", network["EnableIPv6"]}});
    if (o.quiet) std::cout << rows.back()["ID"].get<std::string>() << "\n";
  }
  if (o.quiet) return;
  std::cout << formatRows(
      o.format, {{"NETWORK ID", "ID"}, {"NAME", "Name"}, {"DRIVER", "Driver"}, {"SCOPE", "Scope"}},
      rows);
}

struct CreateOptions {
  std::string name, driver = "bridge";
  std::vector<std::string> subnets, gateways, ranges, labels, options;
  bool internal = false, ipv6 = false, attachable = false;
};

// As with Docker, gateways and ranges belong to the subnet that contains them; the engine says
// which does not, so here the family is enough.
json poolsOf(const CreateOptions& o) {
  json pools = json::array();
  const auto poolFor = [&](const std::string& address) -> json& {
    const bool six = address.find(':') != std::string::npos;
    for (json& pool : pools) {
      if ((pool["Subnet"].get<std::string>().find(':') != std::string::npos) == six) return pool;
    }
    throw Exit{1, fmt::format("no matching subnet for {}", address)};
  };
  for (const auto& subnet : o.subnets) pools.push_back({{"Subnet", subnet}});
  for (const auto& gateway : o.gateways) poolFor(gateway)["Gateway"] = gateway;
  for (const auto& range : o.ranges) poolFor(range)["IPRange"] = range;
  return pools;
}

void createCommand(Context& context, const CreateOptions& o) {
  const json body = {{"Name", o.name},
                     {"Driver", o.driver},
                     {"Internal", o.internal},
                     {"EnableIPv6", o.ipv6},
                     {"Attachable", o.attachable},
                     {"Labels", keyValues(o.labels)},
                     {"Options", keyValues(o.options)},
                     {"IPAM", {{"Driver", "default"}, {"Config", poolsOf(o)}}}};
  const json made = context.engine().post("/networks/create", body);
  std::cout << made.at("Id").get<std::string>() << "\n";
}

void removeCommand(Context& context, bool force, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    try {
      context.engine().call("DELETE", networkPath(name));
      std::cout << name << "\n";
    } catch (const ApiError& error) {
      if (force && error.status() == 404) continue;
      std::cerr << "hull: " << error.what() << "\n";
      context.exit_code = 1;
    }
  }
}

void pruneCommand(Context& context, const std::vector<std::string>& filters) {
  const json pruned = context.engine().post(
      withQuery("/networks/prune", {{"filters", filtersQuery(filters)}}), json());
  const json& deleted = pruned.at("NetworksDeleted");
  if (deleted.empty()) return;
  std::cout << "Deleted Networks:\n";
  for (const auto& name : deleted) std::cout << name.get<std::string>() << "\n";
}

struct ConnectOptions {
  std::string network, container, address, address6;
  std::vector<std::string> aliases;
  bool force = false;
};

void connectCommand(Context& context, const ConnectOptions& o) {
  json endpoint = {{"Aliases", o.aliases}, {"IPAMConfig", json::object()}};
  if (!o.address.empty()) endpoint["IPAMConfig"]["IPv4Address"] = o.address;
  if (!o.address6.empty()) endpoint["IPAMConfig"]["IPv6Address"] = o.address6;
  context.engine().post(networkPath(o.network, "/connect"),
                        json{{"Container", o.container}, {"EndpointConfig", endpoint}});
}

template <typename Options>
std::pair<CLI::App*, std::shared_ptr<Options>> verb(CLI::App* group, const char* name,
                                                    const char* description) {
  return {group->add_subcommand(name, description), std::make_shared<Options>()};
}

void addMembership(CLI::App* group, Context& context) {
  auto [connect, o] = verb<ConnectOptions>(group, "connect", "Connect a container to a network");
  connect->add_option("network", o->network)->required();
  connect->add_option("container", o->container)->required();
  connect->add_option("--ip", o->address, "IPv4 address in this network");
  connect->add_option("--ip6", o->address6, "IPv6 address in this network");
  addList(connect, "--alias", o->aliases, "Another name for the container in this network");
  connect->callback([&context, o = o] { connectCommand(context, *o); });

  auto [disconnect, d] =
      verb<ConnectOptions>(group, "disconnect", "Disconnect a container from a network");
  disconnect->add_option("network", d->network)->required();
  disconnect->add_option("container", d->container)->required();
  disconnect->add_flag("-f,--force", d->force, "Accepted for Docker's sake");
  disconnect->callback([&context, d = d] {
    context.engine().post(networkPath(d->network, "/disconnect"),
                          json{{"Container", d->container}, {"Force", true}});
  });
}

void addCreate(CLI::App* group, Context& context) {
  auto [create, o] = verb<CreateOptions>(group, "create", "Create a network");
  create->add_option("name", o->name)->required();
  create->add_option("-d,--driver", o->driver, "Driver: bridge");
  create->add_flag("--internal", o->internal, "No way out of the network");
  create->add_flag("--ipv6", o->ipv6, "IPv6 too");
  create->add_flag("--attachable", o->attachable, "Accepted for Docker's sake");
  addList(create, "--subnet", o->subnets, "Subnet, like 172.28.0.0/16 or fd00:28::/64");
  addList(create, "--gateway", o->gateways, "The host's address in the subnet");
  addList(create, "--ip-range", o->ranges, "Where addresses are taken from");
  addList(create, "--label", o->labels, "Label K=V");
  addList(create, "-o,--opt", o->options, "Driver option, like com.docker.network.driver.mtu=1400");
  create->callback([&context, o = o] { createCommand(context, *o); });
}

}  // namespace

void addNetworkCommands(CLI::App& app, Context& context) {
  CLI::App* group = app.add_subcommand("network", "Networks of containers");
  group->require_subcommand(1);
  addCreate(group, context);
  addMembership(group, context);

  auto [list, l] = verb<ListOptions>(group, "ls", "List networks");
  list->alias("list");
  list->add_flag("-q,--quiet", l->quiet, "Ids only");
  list->add_flag("--no-trunc", l->no_trunc, "Whole ids");
  list->add_option("--format", l->format, "Template for each line, or json");
  addList(list, "-f,--filter", l->filters, "Filter, like name=app or label=K=V");
  list->callback([&context, l = l] { listCommand(context, *l); });

  struct Names {
    std::vector<std::string> names, filters;
    std::string format;
    bool force = false;
  };
  auto [inspect, i] = verb<Names>(group, "inspect", "Show networks in detail");
  inspect->add_option("names", i->names)->required();
  inspect->add_option("-f,--format", i->format, "Template");
  inspect->callback([&context, i = i] {
    inspectEach(context, i->format, i->names,
                [&](const std::string& name) { return context.engine().get(networkPath(name)); });
  });

  auto [remove, r] = verb<Names>(group, "rm", "Remove networks");
  remove->alias("remove");
  remove->add_option("names", r->names)->required();
  remove->add_flag("-f,--force", r->force, "A network that is not there is no error");
  remove->callback([&context, r = r] { removeCommand(context, r->force, r->names); });

  auto [prune, p] = verb<Names>(group, "prune", "Remove networks that no running container is in");
  prune->add_flag("-f,--force", p->force, "Accepted for Docker's sake: nothing is asked");
  addList(prune, "--filter", p->filters, "Filter, like label=K=V or until=24h");
  prune->callback([&context, p = p] { pruneCommand(context, p->filters); });
}

}  // namespace hull::cli
