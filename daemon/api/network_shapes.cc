// Networks and containers' places in them.
#include "base/hash.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {

std::string withLength(const std::string& address, unsigned prefix_length) {
  return address.empty() ? "" : address + "/" + std::to_string(prefix_length);
}

// "80/tcp": bindings when published, null when only exposed.
Json portsJson(const ContainerSpec& spec, const ContainerState& state) {
  Json ports = Json::object();
  if (!state.running()) return ports;
  for (const std::string& port : spec.exposed_ports) ports[port] = nullptr;
  for (const PortMapping& port : state.ports) {
    Json& list = ports[std::to_string(port.guest_port) + "/" + port.protocol];
    if (list.is_null()) list = Json::array();
    list.push_back({{"HostIp", port.host_address}, {"HostPort", std::to_string(port.host_port)}});
  }
  return ports;
}

Json ipamConfigOf(const Endpoint& endpoint) {
  Json config = Json::object();
  if (!endpoint.wanted_address.empty()) config["IPv4Address"] = endpoint.wanted_address;
  if (!endpoint.wanted_address6.empty()) config["IPv6Address"] = endpoint.wanted_address6;
  return config.empty() ? Json() : config;
}

Json endpointJson(const Container& container, const Endpoint& endpoint,
                  const std::string& network_id) {
  const bool named = endpoint.network != kDefaultNetwork;
  return {{"IPAMConfig", ipamConfigOf(endpoint)},
          {"Links", nullptr},
          {"Aliases", endpoint.aliases.empty() ? Json() : Json(endpoint.aliases)},
          {"MacAddress", endpoint.mac.empty() ? endpoint.wanted_mac : endpoint.mac},
          {"DriverOpts", nullptr},
          {"GwPriority", 0},
          {"NetworkID", network_id},
          {"EndpointID", endpoint.id},
          {"Gateway", endpoint.gateway},
          {"IPAddress", endpoint.address},
          {"IPPrefixLen", endpoint.prefix_length},
          {"IPv6Gateway", endpoint.gateway6},
          {"GlobalIPv6Address", endpoint.address6},
          {"GlobalIPv6PrefixLen", endpoint.prefix_length6},
          {"DNSNames", named ? Json(dnsNamesOf(container, endpoint)) : Json()}};
}

Json membersJson(Engine& engine, const NetworkRecord& network) {
  Json members = Json::object();
  for (const auto& container : engine.containers().list()) {
    const ContainerState state = container->state();
    if (!state.running()) continue;
    for (const Endpoint& endpoint : state.endpoints) {
      if (endpoint.network != network.spec.id) continue;
      members[container->id()] = {
          {"Name", container->name()},
          {"EndpointID", endpoint.id},
          {"MacAddress", endpoint.mac},
          {"IPv4Address", withLength(endpoint.address, endpoint.prefix_length)},
          {"IPv6Address", withLength(endpoint.address6, endpoint.prefix_length6)}};
    }
  }
  return members;
}

Json ipamJson(const NetworkRecord& network) {
  Json pools = Json::array();
  const NetworkSpec& spec = network.spec;
  if (spec.subnet) {
    pools.push_back(
        {{"Subnet", formatSubnet(*spec.subnet)}, {"Gateway", formatAddress(spec.gateway)}});
    if (spec.range) pools.back()["IPRange"] = formatSubnet(*spec.range);
  }
  if (spec.subnet6) {
    pools.push_back(
        {{"Subnet", formatSubnet6(*spec.subnet6)}, {"Gateway", formatAddress6(*spec.gateway6)}});
  }
  return {{"Driver", network.ipam_driver}, {"Options", Json::object()}, {"Config", pools}};
}

}  // namespace

size_t networkMembers(Engine& engine, const NetworkRecord& network) {
  return membersJson(engine, network).size();
}

Json networkJson(Engine& engine, const NetworkRecord& network, bool with_containers) {
  return {{"Name", network.name},
          {"Id", network.id},
          {"Created", timeText(network.predefined ? 0 : network.created_ns)},
          {"Scope", "local"},
          {"Driver", network.driver},
          {"EnableIPv4", network.driver == "bridge"},
          {"EnableIPv6", network.spec.ipv6},
          {"IPAM", ipamJson(network)},
          {"Internal", network.spec.internal},
          {"Attachable", network.attachable},
          {"Ingress", false},
          {"ConfigFrom", {{"Network", ""}}},
          {"ConfigOnly", false},
          {"Containers", with_containers ? membersJson(engine, network) : Json::object()},
          {"Options", network.options},
          {"Labels", network.labels}};
}

Json networksJson(Engine& engine, const Container& container, const ContainerState& state) {
  Json networks = Json::object();
  if (!container.spec().joins.empty()) return networks;  // the other container's
  if (!container.spec().network) {
    Endpoint none;
    if (state.running()) none.id = sha256Hex("hull endpoint " + container.id());
    none.network = kDefaultNetwork;
    networks["none"] = endpointJson(container, none, engine.networks().get("none").id);
    return networks;
  }
  for (const Endpoint& endpoint : state.endpoints) {
    const auto network = engine.networks().findById(endpoint.network);
    networks[network ? network->name : endpoint.network] =
        endpointJson(container, endpoint, network ? network->id : endpoint.network);
  }
  return networks;
}

Json networkSettings(Engine& engine, const Container& container, const ContainerState& state) {
  // The old fields speak of the default network only.
  Endpoint usual;
  for (const Endpoint& endpoint : state.endpoints) {
    if (endpoint.network == kDefaultNetwork) usual = endpoint;
  }
  return {{"Bridge", ""},
          {"SandboxID", state.running() ? sha256Hex("hull sandbox " + container.id()) : ""},
          {"SandboxKey", ""},
          {"Ports", portsJson(container.spec(), state)},
          {"HairpinMode", false},
          {"LinkLocalIPv6Address", ""},
          {"LinkLocalIPv6PrefixLen", 0},
          {"SecondaryIPAddresses", nullptr},
          {"SecondaryIPv6Addresses", nullptr},
          {"EndpointID", usual.id},
          {"Gateway", usual.gateway},
          {"GlobalIPv6Address", usual.address6},
          {"GlobalIPv6PrefixLen", usual.prefix_length6},
          {"IPAddress", usual.address},
          {"IPPrefixLen", usual.prefix_length},
          {"IPv6Gateway", usual.gateway6},
          {"MacAddress", usual.mac},
          {"Networks", networksJson(engine, container, state)}};
}

}  // namespace hull::engine::api
