// BridgeNetwork: network cards and published ports.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "daemon/network/bridge_network.h"
#include "daemon/network/network_plan.h"

namespace hull::engine {

namespace {

constexpr size_t kTapNameRandomBytes = 3;

// The same card, in no network.
Lease spareOf(const Lease& lease) {
  Lease spare;
  spare.container = lease.container;
  spare.slot = lease.slot;
  spare.interface = lease.interface;
  spare.mac = lease.mac;
  return spare;
}

}  // namespace

GuestPort guestPortOf(const Lease& lease, const NetworkSpec& network) {
  return {lease.interface, lease.mac,          lease.address,
          lease.address6,  lease.reaches_host, network.isolated};
}

// Taps that no VMM holds are leftovers of dead VMs, and so are leases without a tap.
void BridgeNetwork::healLeftovers() {
  std::set<std::string> alive;
  for (const auto& link : links_.list(tap_prefix_)) {
    if (link.carrier) {
      alive.insert(link.name);
    } else {
      log::info("network: removing " + link.name +
                ", left behind by a virtual machine that is gone");
      links_.remove(link.name);
    }
  }
  leases_.removeIf([&](const Lease& lease) { return !alive.contains(lease.interface); });
}

// The card the lease shall use: the first spare one of a VM that runs, or one yet to be made.
void BridgeNetwork::take(Lease& lease, bool running, bool wants_mac) {
  const auto cards = leases_.of(lease.container);
  const unsigned limit = kMaxNetworksPerContainer + (lease.spare() ? 1 : 0);
  if (cards.size() >= limit && !running) {
    throw Error(
        ErrorKind::kConflict,
        "a container can be in " + std::to_string(kMaxNetworksPerContainer) + " networks at most");
  }
  if (!running) {
    lease.slot = cards.empty() ? 0 : cards.back().slot + 1;
    lease.interface = tap_prefix_ + randomHex(kTapNameRandomBytes);
    return;
  }
  for (const Lease& card : cards) {
    if (!card.spare()) continue;
    if (wants_mac && lease.mac != card.mac) {
      throw Error(ErrorKind::kConflict,
                  "its virtual machine runs and keeps its MAC addresses: stop it first");
    }
    lease.slot = card.slot;
    lease.interface = card.interface;
    lease.mac = card.mac;  // the VMM lets it send from no other
    return;
  }
  throw Error(ErrorKind::kConflict,
              "its virtual machine has no spare network card left: disconnect it from another "
              "network first, or stop it, connect it and start it again");
}

void BridgeNetwork::connect(const Lease& lease, const NetworkSpec& network) {
  links_.putIntoBridge(lease.interface, network.bridge, network.mtu);
  firewall_.addGuest(guestPortOf(lease, network));
}

Attachment BridgeNetwork::attach(const std::string& container_id, const EndpointSpec& endpoint,
                                 bool running) {
  return inContext("attach to network", [&] {
    const std::lock_guard lock(mutex_);
    const NetworkSpec& network = need(endpoint.network);
    if (leases_.find(container_id, network.id)) {
      throw Error(ErrorKind::kForbidden, "endpoint already exists in network " + network.name);
    }
    Lease lease = planEndpoint(network, leases_.all(), container_id, endpoint);
    take(lease, running, !endpoint.mac.empty());
    Attachment attachment = attachmentOf(lease, &network);
    try {
      if (!running) attachment.tap = links_.createTap(lease.interface);
      leases_.put(lease);
      connect(lease, network);
    } catch (...) {
      running ? makeSpare(lease) : releaseCard(lease);
      throw;
    }
    namesChanged();
    return attachment;
  });
}

std::optional<Attachment> BridgeNetwork::addSpare(const std::string& container_id) {
  return inContext("add a network card", [&] {
    const std::lock_guard lock(mutex_);
    Lease lease;
    lease.container = container_id;
    take(lease, false, false);
    lease.mac = freeMac({0x02, 0x43}, leases_.all());
    Attachment attachment = attachmentOf(lease, nullptr);
    attachment.tap = links_.createTap(lease.interface);
    try {
      leases_.put(lease);
    } catch (...) {
      links_.remove(lease.interface);
      throw;
    }
    return attachment;
  });
}

std::optional<Attachment> BridgeNetwork::disconnect(const std::string& container_id,
                                                    const std::string& network) {
  const std::lock_guard lock(mutex_);
  const Lease* found = leases_.find(container_id, network);
  if (!found) return std::nullopt;
  const Lease lease = *found;
  makeSpare(lease);
  namesChanged();
  return attachmentOf(spareOf(lease), nullptr);
}

void BridgeNetwork::makeSpare(const Lease& lease) {
  firewall_.removeGuest(lease.interface);
  links_.takeOutOfBridge(lease.interface);
  leases_.put(spareOf(lease));
}

std::vector<Attachment> BridgeNetwork::reattach(const std::string& container_id) {
  const std::lock_guard lock(mutex_);
  std::vector<Attachment> found;
  for (const Lease& lease : leases_.of(container_id)) {
    const auto network = networks_.find(lease.network);
    found.push_back(attachmentOf(lease, network == networks_.end() ? nullptr : &network->second));
  }
  if (!found.empty()) return found;
  throw Error(ErrorKind::kNotFound,
              "container " + container_id + " is not attached to the network");
}

void BridgeNetwork::releaseCard(const Lease& lease) {
  firewall_.removeGuest(lease.interface);
  links_.remove(lease.interface);
  leases_.remove(lease.container, lease.slot);
}

void BridgeNetwork::detach(const std::string& container_id) {
  unpublish(container_id);
  const std::lock_guard lock(mutex_);
  for (const Lease& lease : leases_.of(container_id)) releaseCard(lease);
  namesChanged();
}

void BridgeNetwork::rename(const std::string& container_id, const std::string& from,
                           const std::string& to) {
  const std::lock_guard lock(mutex_);
  const std::string old_name = dnsName(from), new_name = dnsName(to);
  for (Lease lease : leases_.of(container_id)) {
    const auto named = std::find(lease.names.begin(), lease.names.end(), old_name);
    if (named == lease.names.end() || new_name.empty()) continue;
    *named = new_name;
    leases_.put(lease);
  }
  namesChanged();
}

// --- ports ---

std::vector<PortMapping> BridgeNetwork::publish(const std::string& container_id,
                                                const std::vector<PortMapping>& ports) {
  uint32_t guest = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const Lease& lease : leases_.of(container_id)) {
      const auto network = networks_.find(lease.network);
      if (network == networks_.end() || network->second.internal || guest != 0) continue;
      guest = lease.address;
    }
  }
  if (guest == 0) {
    throw Error(ErrorKind::kNotFound,
                "container " + container_id + " is in no network that ports can be published to");
  }
  const auto real = ports_->publish(container_id, guest, ports);
  const std::lock_guard lock(mutex_);
  if (!options_.port_publisher.empty() || !firewall_.foreignDrop().empty()) return real;
  for (const PortMapping& port : real) {
    const auto address = parseAddress(port.host_address);
    // Over IPv6, and from this host itself, the relay leads there.
    if (!address || *address >> 24 == 127) continue;
    const PublishedRule rule{port.protocol, *address, port.host_port, guest, port.guest_port};
    firewall_.publish(rule);
    published_.emplace(container_id, rule);
  }
  return real;
}

void BridgeNetwork::unpublish(const std::string& container_id) {
  {
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = published_.equal_range(container_id);
    for (auto each = begin; each != end; ++each) firewall_.unpublish(each->second);
    published_.erase(begin, end);
  }
  if (ports_) ports_->unpublish(container_id);
}

}  // namespace hull::engine
