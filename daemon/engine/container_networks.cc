// Containers: their places in networks, before, while and after they run.
#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/names.h"
#include "daemon/engine/networks.h"
#include "daemon/vm/guest_files.h"

namespace hull::engine {

namespace {

bool wantsHost(const ContainerSpec& spec) {
  return std::any_of(spec.extra_hosts.begin(), spec.extra_hosts.end(), [](const std::string& text) {
    return parseExtraHost(text).address == kHostGateway;
  });
}

std::vector<PortMapping> portsOf(const ContainerSpec& spec) {
  std::vector<PortMapping> ports;
  for (const PortBinding& port : spec.ports) {
    ports.push_back(
        {port.host_address, port.host_port, port.guest_port, port.protocol, port.host_port_last});
  }
  return ports;
}

// On the default network names are not served, as with Docker: there --dns goes into the
// container's resolv.conf itself.
EndpointSpec placeOf(const Container& container, const Endpoint& endpoint) {
  EndpointSpec spec;
  spec.ports = portsOf(container.spec());
  spec.network = endpoint.network;
  spec.address = endpoint.wanted_address;
  spec.address6 = endpoint.wanted_address6;
  spec.mac = endpoint.wanted_mac;
  spec.reaches_host = wantsHost(container.spec());
  if (endpoint.network == kDefaultNetwork) return spec;
  spec.names = dnsNamesOf(container, endpoint);
  spec.servers = container.spec().dns;
  return spec;
}

void fill(Endpoint& endpoint, const Attachment& card) {
  endpoint.id = newId();
  endpoint.address = card.address;
  endpoint.prefix_length = card.prefix_length;
  endpoint.gateway = card.gateway;
  endpoint.address6 = card.address6;
  endpoint.prefix_length6 = card.address6.empty() ? uint8_t{0} : card.prefix_length6;
  endpoint.gateway6 = card.gateway6;
  endpoint.mac = formatMac(card.mac);
}

// What each card shall be; the default route leads through the first network that has a way out.
std::vector<guest::ConfigureNetwork> guestCards(const std::vector<Attachment>& cards) {
  std::vector<guest::ConfigureNetwork> messages;
  bool routed = false;
  for (const Attachment& card : cards) {
    guest::ConfigureNetwork message{card.address, card.prefix_length, "", card.mtu};
    message.interface = "eth" + std::to_string(card.slot);
    message.address6 = card.address6;
    message.prefix_length6 = card.prefix_length6;
    if (!routed && !card.gateway.empty()) {
      message.gateway = card.gateway;
      message.gateway6 = card.gateway6;
      routed = true;
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

const Attachment* firstPlace(const std::vector<Attachment>& cards) {
  const auto found = std::find_if(cards.begin(), cards.end(),
                                  [](const Attachment& card) { return !card.network.empty(); });
  return found == cards.end() ? nullptr : &*found;
}

// Where the default route and published ports lead.
std::string wayOut(const std::vector<Attachment>& cards) {
  const auto found = std::find_if(cards.begin(), cards.end(),
                                  [](const Attachment& card) { return !card.gateway.empty(); });
  return found == cards.end() ? std::string() : found->address;
}

// The cards before the one of `slot` changed hands: spare, or in the network that `endpoints` still
// has it in.
std::vector<Attachment> cardsBefore(const std::vector<Attachment>& now, unsigned slot,
                                    const std::vector<Endpoint>& endpoints) {
  std::vector<Attachment> before;
  for (const Attachment& card : now) {
    Attachment earlier;
    earlier.slot = card.slot;
    if (card.slot != slot) {
      earlier.address = card.address;
      earlier.gateway = card.gateway;
    } else if (card.network.empty()) {
      for (const Endpoint& endpoint : endpoints) {
        const bool gone = std::none_of(now.begin(), now.end(), [&](const Attachment& each) {
          return each.network == endpoint.network;
        });
        if (!gone) continue;
        earlier.address = endpoint.address;
        earlier.gateway = endpoint.gateway;
      }
    }
    before.push_back(std::move(earlier));
  }
  return before;
}

}  // namespace

std::vector<std::string> dnsNamesOf(const Container& container, const Endpoint& endpoint) {
  std::vector<std::string> names{container.name()};
  names.insert(names.end(), endpoint.aliases.begin(), endpoint.aliases.end());
  names.push_back(shortId(container.id()));
  names.push_back(container.hostname());
  return names;
}

void forgetPlaces(ContainerState& state) {
  state.ports.clear();
  for (Endpoint& endpoint : state.endpoints) {
    Endpoint asked;
    asked.network = endpoint.network;
    asked.aliases = endpoint.aliases;
    asked.wanted_address = endpoint.wanted_address;
    asked.wanted_address6 = endpoint.wanted_address6;
    asked.wanted_mac = endpoint.wanted_mac;
    endpoint = std::move(asked);
  }
}

guest::CreateContainer createMessage(const ContainerSpec& spec, const std::string& hostname,
                                     const std::vector<Attachment>& cards, bool writable_disk) {
  const Attachment* first = firstPlace(cards);
  if (!first) return createMessage(spec, hostname, "", "", writable_disk);
  if (first->network == kDefaultNetwork && cards.size() <= 2) {
    return createMessage(spec, hostname, first->address, first->resolver, writable_disk);
  }
  ContainerSpec asked = spec;
  asked.dns.clear();  // the network's server asks them
  return createMessage(asked, hostname, first->address, first->resolver, writable_disk);
}

Network& Containers::networkFor(const Container& container) const {
  if (parts_.network) return *parts_.network;
  throw Error(ErrorKind::kUnavailable, "connect container " + container.id() +
                                           " to its network: " + parts_.network_error +
                                           " (or run it with --network none)");
}

// The cards for a VM about to start, one of them to spare. On failure nothing is attached.
std::vector<Attachment> Containers::attachNetworks(Container& container, ContainerState& state) {
  Network& network = networkFor(container);
  network.detach(container.id());  // of an earlier run that was not
  state.endpoints = container.state().endpoints;
  std::vector<Attachment> cards;
  try {
    for (Endpoint& endpoint : state.endpoints) {
      cards.push_back(network.attach(container.id(), placeOf(container, endpoint)));
      fill(endpoint, cards.back());
    }
    if (auto spare = network.addSpare(container.id())) cards.push_back(std::move(*spare));
  } catch (...) {
    network.detach(container.id());
    throw;
  }
  return cards;
}

void Containers::configureCards(Vm& vm, const std::vector<Attachment>& cards) {
  for (auto& message : guestCards(cards)) {
    if (!message.address.empty()) vm.request("", std::move(message));
  }
}

std::vector<PortMapping> Containers::publishPorts(const Container& container,
                                                  const std::vector<Attachment>& cards) {
  const std::vector<PortMapping> ports = portsOf(container.spec());
  // From an internal network nothing is published, and Docker does not complain either.
  const bool reachable = std::any_of(cards.begin(), cards.end(),
                                     [](const Attachment& card) { return !card.gateway.empty(); });
  if (ports.empty() || !reachable) return {};
  return parts_.network->publish(container.id(), ports);
}

void Containers::detachNetwork(const Container& container) {
  if (!container.spec().network || !parts_.network) return;
  try {
    parts_.network->unpublish(container.id());
    parts_.network->detach(container.id());
  } catch (const Error& error) {
    log::warning("disconnect container " + container.id() + ": " + error.what());
  }
}

// Tells a running guest that the card of `slot` has changed hands, and whichever then has the
// default route; name files are written anew. Ports move only when what they led to is gone: they
// keep their numbers, and connections live on.
void Containers::refreshGuest(Container& container, unsigned changed_slot) {
  const auto run = container.run();
  if (!run) return;
  const ContainerState state = container.state();
  const auto cards = parts_.network->reattach(container.id());
  const std::string before = wayOut(cardsBefore(cards, changed_slot, state.endpoints));
  const std::string after = wayOut(cards);
  for (auto& message : guestCards(cards)) {
    const bool changed = message.interface == "eth" + std::to_string(changed_slot);
    const bool rerouted =
        before != after && (message.address == before || message.address == after);
    if (changed || (rerouted && !message.address.empty())) {
      run->vm()->request("", std::move(message));
    }
  }
  const auto files = createMessage(container.spec(), container.hostname(), cards, true);
  run->request(guest::WriteNameFiles{files.hosts, files.resolv_conf});
  if (before == after || container.spec().ports.empty()) return;
  parts_.network->unpublish(container.id());
  std::vector<PortMapping> ports;
  if (!after.empty()) {
    ports = state.ports.empty() ? publishPorts(container, cards)
                                : parts_.network->publish(container.id(), state.ports);
  }
  save(container, [&](ContainerState& changed) { changed.ports = ports; });
}

void Containers::connect(const std::shared_ptr<Container>& container, const NetworkRecord& network,
                         Endpoint endpoint) {
  const auto operation = container->operation();
  if (container->removed()) {
    throw Error(ErrorKind::kNotFound, "No such container: " + container->id());
  }
  if (!container->spec().joins.empty()) {
    throw Error(ErrorKind::kConflict,
                "container sharing network namespace with another container or host cannot be "
                "connected to any other network");
  }
  if (!container->spec().network || network.spec.id.empty()) {
    throw Error(ErrorKind::kForbidden,
                "container cannot be connected to multiple networks with one of the networks in "
                "private (none) mode");
  }
  const ContainerState state = container->state();
  const auto same = [&](const Endpoint& each) { return each.network == network.spec.id; };
  if (std::any_of(state.endpoints.begin(), state.endpoints.end(), same)) {
    throw Error(ErrorKind::kForbidden, "endpoint with name " + container->name() +
                                           " already exists in network " + network.name);
  }
  if (state.endpoints.size() >= kMaxNetworksPerContainer) {
    throw Error(ErrorKind::kConflict, "container " + container->name() + " is in " +
                                          std::to_string(state.endpoints.size()) +
                                          " networks, which is as many as it can be in");
  }
  if (container->run()) {
    const Attachment card =
        networkFor(*container).attach(container->id(), placeOf(*container, endpoint), true);
    fill(endpoint, card);
    try {
      refreshGuest(*container, card.slot);
    } catch (...) {
      parts_.network->disconnect(container->id(), network.spec.id);
      throw;
    }
  }
  save(*container, [&](ContainerState& changed) { changed.endpoints.push_back(endpoint); });
  networks_.publish(network, "connect", {{"container", container->id()}});
}

void Containers::disconnect(const std::shared_ptr<Container>& container,
                            const NetworkRecord& network) {
  const auto operation = container->operation();
  const ContainerState state = container->state();
  const auto same = [&](const Endpoint& each) { return each.network == network.spec.id; };
  if (std::none_of(state.endpoints.begin(), state.endpoints.end(), same)) {
    throw Error(ErrorKind::kForbidden,
                "container " + container->id() + " is not connected to network " + network.name);
  }
  if (parts_.network && container->run()) {
    const auto card = parts_.network->disconnect(container->id(), network.spec.id);
    try {
      if (card) refreshGuest(*container, card->slot);
    } catch (const Error& error) {
      // What the host enforces counts: it is out all the same.
      log::warning("tell container " + container->id() + " that it has left " + network.name +
                   ": " + error.what());
    }
  }
  save(*container, [&](ContainerState& changed) { std::erase_if(changed.endpoints, same); });
  networks_.publish(network, "disconnect", {{"container", container->id()}});
}

}  // namespace hull::engine
