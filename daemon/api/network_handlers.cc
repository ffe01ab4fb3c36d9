// Networks (the default ones), volumes (none yet), and the refusals of what Hull does not have.
#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

constexpr const char* kNames[] = {"bridge", "none"};
constexpr const char* kNotSwarm =
    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to "
    "connect this node to swarm and try again.";

bool nameFits(const Filters& filters, const std::string& name) {
  const auto& wanted = filters.get("name");
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& part) {
           return name.find(part) != std::string::npos;
         });
}

void listNetworks(Exchange& exchange, Engine& engine) {
  const Filters filters(exchange.request().query.get("filters"),
                        {"dangling", "driver", "id", "label", "name", "scope", "type"});
  Json networks = Json::array();
  for (const std::string name : kNames) {
    const Json network = networkJson(engine, name, false);
    const std::string id = network["Id"], driver = network["Driver"];
    const auto& ids = filters.get("id");
    const bool id_fits = ids.empty() || std::any_of(ids.begin(), ids.end(), [&](const auto& part) {
                           return id.starts_with(part);
                         });
    if (nameFits(filters, name) && id_fits && filters.allows("driver", driver) &&
        filters.allows("scope", "local") && filters.allows("type", "builtin") &&
        filters.labelsFit({})) {
      networks.push_back(network);
    }
  }
  exchange.json(200, dump(networks));
}

std::string existingNetwork(const std::string& wanted) {
  for (const std::string name : kNames) {
    if (wanted == name || (wanted.size() >= 12 && networkId(name).starts_with(wanted))) return name;
  }
  if (wanted == "default") return "bridge";
  throw Error(ErrorKind::kNotFound, "network " + wanted + " not found");
}

[[noreturn]] void refuse(const char* sentence) {
  throw Error(ErrorKind::kNotSupported, sentence);
}

void removeNetwork(Exchange& exchange) {
  const std::string name = existingNetwork(exchange.parameter(0));
  throw Error(ErrorKind::kForbidden, name + " is a pre-defined network and cannot be removed");
}

void addVolumeRoutes(Router& router) {
  router.add("GET", "/volumes", [](Exchange& e) {
    e.json(200, dump({{"Volumes", Json::array()}, {"Warnings", nullptr}}));
  });
  router.add("POST", "/volumes/create", [](Exchange&) { refuse("volumes are not supported yet"); });
  router.add("POST", "/volumes/prune", [](Exchange& e) {
    e.json(200, dump({{"VolumesDeleted", Json::array()}, {"SpaceReclaimed", 0}}));
  });
  const auto missing = [](Exchange& e) {
    throw Error(ErrorKind::kNotFound, "get " + e.parameter(0) + ": no such volume");
  };
  router.add("GET", "/volumes/{name}", missing);
  router.add("DELETE", "/volumes/{name}", missing);
}

}  // namespace

void addNetworkRoutes(Router& router, Engine& engine) {
  router.add("GET", "/networks", [&](Exchange& e) { listNetworks(e, engine); });
  router.add("POST", "/networks/create", [](Exchange&) {
    refuse("networks of one's own are not supported yet: use the default network");
  });
  router.add("POST", "/networks/prune", [](Exchange& e) {
    e.json(200, dump({{"NetworksDeleted", Json::array()}}));
  });
  router.add("GET", "/networks/{name}", [&](Exchange& e) {
    e.json(200, dump(networkJson(engine, existingNetwork(e.parameter(0)), true)));
  });
  router.add("DELETE", "/networks/{name}", removeNetwork);
  const auto connecting = [](Exchange& e) {
    existingNetwork(e.parameter(0));
    refuse("a container's network cannot be changed after its creation yet");
  };
  router.add("POST", "/networks/{name}/connect", connecting);
  router.add("POST", "/networks/{name}/disconnect", connecting);
  addVolumeRoutes(router);

  const auto no_swarm = [](Exchange&) { throw Error(ErrorKind::kUnavailable, kNotSwarm); };
  for (const char* path : {"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"}) {
    router.add("GET", path, no_swarm);
    router.add("GET", std::string(path) + "/{rest*}", no_swarm);
    router.add("POST", std::string(path) + "/{rest*}", no_swarm);
    router.add("DELETE", std::string(path) + "/{rest*}", no_swarm);
  }
  router.add("GET", "/plugins", [](Exchange& e) { e.json(200, "[]\n"); });
}

}  // namespace hull::engine::api
