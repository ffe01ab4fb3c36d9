// Networks, and the refusals of what Hull does not have.
#include <algorithm>

#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/api/time_query.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

constexpr const char* kNotSwarm =
    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to "
    "connect this node to swarm and try again.";

// Any of the values begins or contains, as Docker compares.
template <typename Fits>
bool any(const std::vector<std::string>& wanted, const Fits& fits) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), fits);
}

bool networkFits(Engine& engine, const Filters& filters, const NetworkRecord& network) {
  if (filters.has("dangling")) {
    const bool used = network.predefined || networkMembers(engine, network) > 0;
    if (filters.flag("dangling", false) == used) return false;
  }
  return any(filters.get("name"),
             [&](const std::string& part) {
               return network.name.find(part) != std::string::npos;
             }) &&
         any(filters.get("id"),
             [&](const std::string& part) { return network.id.find(part) != std::string::npos; }) &&
         filters.allows("driver", network.driver) && filters.allows("scope", "local") &&
         filters.allows("type", network.predefined ? "builtin" : "custom") &&
         filters.labelsFit(network.labels);
}

void listNetworks(Exchange& exchange, Engine& engine) {
  const Filters filters(exchange.request().query.get("filters"),
                        {"dangling", "driver", "id", "label", "name", "scope", "type"});
  Json networks = Json::array();
  for (const NetworkRecord& network : engine.networks().list()) {
    if (networkFits(engine, filters, network))
      networks.push_back(networkJson(engine, network, false));
  }
  exchange.json(200, dump(networks));
}

void createNetwork(Exchange& exchange, Engine& engine) {
  const NetworkRecord made = engine.networks().create(exchange.text());
  exchange.json(201, dump({{"Id", made.id}, {"Warning", ""}}));
}

void pruneNetworks(Exchange& exchange, Engine& engine) {
  const Filters filters(exchange.request().query.get("filters"), {"label", "label!", "until"});
  const auto until = filters.has("until") ? timeQuery(filters.get("until").front()) : std::nullopt;
  Json deleted = Json::array();
  for (const NetworkRecord& network : engine.networks().list()) {
    if (network.predefined || !filters.labelsFit(network.labels)) continue;
    if (until && network.created_ns > *until) continue;
    if (networkMembers(engine, network) > 0) continue;
    try {
      engine.networks().remove(network);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kForbidden) continue;  // somebody has joined it meanwhile
      throw;
    }
    deleted.push_back(network.name);
  }
  exchange.json(200, dump({{"NetworksDeleted", deleted}}));
}

// --- connect, disconnect ---

void connectContainer(Exchange& exchange, Engine& engine) {
  const NetworkRecord network = engine.networks().get(exchange.parameter(0));
  const Json body = fields::parseObject(exchange.text(), "the request");
  const auto container = engine.containers().get(fields::text(body, "Container"));
  const Json* config = fields::find(body, "EndpointConfig");
  engine.containers().connect(container, network,
                              parseEndpoint(network.spec.id, config ? fields::dump(*config) : ""));
  exchange.empty(200);
}

void disconnectContainer(Exchange& exchange, Engine& engine) {
  const NetworkRecord network = engine.networks().get(exchange.parameter(0));
  const Json body = fields::parseObject(exchange.text(), "the request");
  engine.containers().disconnect(engine.containers().get(fields::text(body, "Container")), network);
  exchange.empty(200);
}

}  // namespace

void addNetworkRoutes(Router& router, Engine& engine) {
  router.add("GET", "/networks", [&](Exchange& e) { listNetworks(e, engine); });
  router.add("POST", "/networks/create", [&](Exchange& e) { createNetwork(e, engine); });
  router.add("POST", "/networks/prune", [&](Exchange& e) { pruneNetworks(e, engine); });
  router.add("GET", "/networks/{name}", [&](Exchange& e) {
    e.json(200, dump(networkJson(engine, engine.networks().get(e.parameter(0)), true)));
  });
  router.add("DELETE", "/networks/{name}", [&](Exchange& e) {
    engine.networks().remove(engine.networks().get(e.parameter(0)));
    e.empty(204);
  });
  router.add("POST", "/networks/{name}/connect", [&](Exchange& e) { connectContainer(e, engine); });
  router.add("POST", "/networks/{name}/disconnect",
             [&](Exchange& e) { disconnectContainer(e, engine); });

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
