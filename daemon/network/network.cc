// BridgeNetwork: the networks themselves.
#include <fcntl.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "daemon/network/bridge_network.h"
#include "daemon/network/network_plan.h"
#include "daemon/network/user_network.h"

namespace hull::engine {

namespace {

constexpr size_t kTagCharacters = 5;       // of this engine, in the names of what it makes
constexpr size_t kBridgeIdCharacters = 6;  // of a network's id, in its bridge's name
constexpr uint16_t kDnsPort = 53;
constexpr size_t kMaxInterfaceNameBytes = 15;  // IFNAMSIZ - 1
constexpr size_t kMaxSubnetFileBytes = 64;
constexpr const char* kUsualBridge = "hull0";
constexpr unsigned kMaxEnginesOfHost = 64;

// Names of interfaces go into nftables' text.
void checkBridgeName(const std::string& name) {
  const bool fits =
      !name.empty() && name.size() <= kMaxInterfaceNameBytes &&
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") ==
          std::string::npos;
  if (!fits) {
    throw Error(ErrorKind::kInvalidArgument,
                "bridge \"" + name + "\": not a usable interface name");
  }
}

void enableForwarding() {
  inContext("let the host forward packets", [] {
    const Fd file = openFile("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
    writeFull(file.get(), "1");
  });
}

void enableIpv6Forwarding() {
  try {
    const Fd file = openFile("/proc/sys/net/ipv6/conf/all/forwarding", O_WRONLY);
    writeFull(file.get(), "1");
  } catch (const Error& error) {
    log::warning(std::string("IPv6 does not leave this host: ") + error.what());
  }
}

// "5432/tcp" as the firewall's sets have it.
std::string portElement(const std::string& text) {
  const size_t slash = text.find('/');
  const std::string number = text.substr(0, slash);
  const std::string protocol = slash == std::string::npos ? "tcp" : text.substr(slash + 1);
  const bool numeric = !number.empty() && number.size() <= 5 &&
                       number.find_first_not_of("0123456789") == std::string::npos &&
                       std::stoul(number) >= 1 && std::stoul(number) <= 65535;
  if (!numeric || (protocol != "tcp" && protocol != "udp")) {
    throw Error(ErrorKind::kInvalidArgument, "\"" + text + "\" is no port like 5432/tcp");
  }
  return protocol + " . " + number;
}

std::string blockedElement(const std::string& text) {
  if (!parseAddress(text) && !parseSubnet(text)) {
    throw Error(ErrorKind::kInvalidArgument,
                "\"" + text + "\" is no address or subnet that can be blocked");
  }
  return text;
}

std::string tagOf(const NetworkOptions& options) {
  const std::string& unique =
      options.state_directory.empty() ? options.bridge : options.state_directory;
  return sha256Hex("hull engine " + unique).substr(0, kTagCharacters);
}

}  // namespace

BridgeNetwork::BridgeNetwork(const NetworkOptions& options)
    : options_(options),
      tag_(tagOf(options)),
      tap_prefix_("ht" + tag_ + "-"),
      bridge_prefix_("hb" + tag_ + "-"),
      alias_("hull engine " + tag_),
      leases_(options.state_directory.empty() ? "" : options.state_directory + "/leases.json"),
      names_(options.hosts) {
  checkBridgeName(options_.bridge);
  if (!options_.state_directory.empty()) makeDirectories(options_.state_directory);
  FirewallRules& rules = firewall_.rules();
  rules.table = "hull_" + tag_;
  rules.tap_prefix = tap_prefix_;
  for (const auto& text : options_.blocked) rules.blocked.push_back(blockedElement(text));
  for (const auto& text : options_.open_host_ports)
    rules.open_host_ports.push_back(portElement(text));
  healLeftovers();
  enableForwarding();
  ports_ = std::make_unique<PublishedPorts>(loop_, options_.port_publisher);
  try {
    makeDefault();
    applyRules();
    namesChanged();
    watch_ = std::make_unique<FirewallWatch>(rules.table, [this] {
      const std::lock_guard lock(mutex_);
      if (firewall_.restoreIfChanged()) log::warning("packet rules were taken away: made again");
    });
    if (const std::string chain = firewall_.foreignDrop(); !chain.empty()) {
      log::warning("this host drops what it forwards (" + chain +
                   "): containers reach nothing outside until that chain accepts what comes from "
                   "and goes to their bridges (docs/networking.md says how)");
    }
  } catch (...) {
    stopServing();
    throw;
  }
}

void BridgeNetwork::stopServing() {
  ports_.reset();
  loop_.run([this] { dns_.clear(); });
}

// --- networks ---

// The one that has been this engine's, or the first that is nobody else's.
std::string BridgeNetwork::pickBridge() {
  for (const LinkInfo& link : links_.list("")) {
    if (link.alias == alias_ && !link.name.starts_with(bridge_prefix_)) return link.name;
  }
  const auto present = links_.find(options_.bridge);
  const bool foreign = present && present->alias.starts_with("hull engine ");
  if (!foreign) return options_.bridge;
  for (unsigned i = 1; options_.bridge == kUsualBridge && i < kMaxEnginesOfHost; ++i) {
    const std::string name = "hull" + std::to_string(i);
    if (!links_.exists(name)) return name;
  }
  throw Error(ErrorKind::kConflict, "bridge " + options_.bridge +
                                        " belongs to another engine: choose another name with "
                                        "--bridge");
}

// What the bridge has already stays: VMs of an earlier engine process may live on it.
Subnet BridgeNetwork::pickSubnet(const std::string& bridge) {
  auto wanted = parseSubnet(options_.subnet);
  if (!wanted) {
    throw Error(ErrorKind::kInvalidArgument,
                "network: \"" + options_.subnet + "\" is no subnet like 172.17.0.0/16");
  }
  std::vector<std::string> ours{bridge};
  for (const LinkInfo& link : links_.list(bridge_prefix_)) ours.push_back(link.name);
  const auto taken = links_.takenSubnets(ours);
  for (const Subnet& present : links_.subnetsOf(bridge)) {
    if (chooseSubnet(present, taken) == present) return present;
    // The host has joined a network that ours hides: move out of its way.
    links_.remove(bridge);
  }
  const std::string last = options_.state_directory + "/subnet";
  if (!options_.state_directory.empty() && fileExists(last)) {
    if (const auto before = parseSubnet(readFile(last, kMaxSubnetFileBytes))) wanted = before;
  }
  const auto chosen = chooseSubnet(*wanted, taken);
  if (!chosen) {
    throw Error(ErrorKind::kConflict,
                "network: every subnet from 172.16.0.0/16 to 172.31.0.0/16 is in use "
                "on this host (name a free one)");
  }
  if (formatSubnet(*chosen) != options_.subnet) {
    log::info("network: " + options_.subnet + " is not free, using " + formatSubnet(*chosen));
  }
  if (!options_.state_directory.empty()) writeFileAtomic(last, formatSubnet(*chosen), 0600);
  return *chosen;
}

void BridgeNetwork::makeDefault() {
  NetworkSpec network;
  network.id = network.name = kDefaultNetwork;
  network.bridge = pickBridge();
  network.subnet = pickSubnet(network.bridge);
  network.gateway = network.subnet->gateway();
  leases_.removeIf([&](const Lease& lease) {
    return lease.network == network.id && !network.subnet->contains(lease.address);
  });
  make(network);
}

const NetworkSpec& BridgeNetwork::need(const std::string& id) const {
  const auto found = networks_.find(id);
  if (found == networks_.end()) throw Error(ErrorKind::kNotFound, "network " + id + " not found");
  return found->second;
}

std::optional<NetworkSpec> BridgeNetwork::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = networks_.find(id);
  return found == networks_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<NetworkSpec> BridgeNetwork::specs() const {
  std::vector<NetworkSpec> all;
  for (const auto& [id, network] : networks_) all.push_back(network);
  return all;
}

// Bridge and DNS server; the rules are the caller's.
void BridgeNetwork::make(const NetworkSpec& network) {
  if (network.ipv6) enableIpv6Forwarding();
  links_.ensureBridge({network.bridge, alias_, network.gateway, network.subnet->prefix_length,
                       network.gateway6,
                       network.subnet6 ? network.subnet6->prefix_length : uint8_t{0}, network.mtu});
  try {
    DnsOptions dns;
    dns.resolv_conf = options_.resolv_conf;
    dns.names = &names_;
    dns.over_tcp = !network.internal;
    loop_.run([&] {
      dns_[network.id] =
          std::make_unique<DnsForwarder>(loop_.loop(), network.gateway, kDnsPort, dns);
    });
  } catch (...) {
    links_.remove(network.bridge);
    throw;
  }
  networks_[network.id] = network;
}

void BridgeNetwork::unmake(const NetworkSpec& network) {
  loop_.run([&] { dns_.erase(network.id); });
  links_.remove(network.bridge);
  networks_.erase(network.id);
}

void BridgeNetwork::applyRules() {
  FirewallRules& rules = firewall_.rules();
  rules.networks.clear();
  for (const auto& [id, network] : networks_) {
    rules.networks.push_back({network.bridge, *network.subnet, network.gateway, dns_.at(id)->port(),
                              network.internal, network.isolated, network.masquerade});
  }
  rules.guests.clear();
  for (const Lease& lease : leases_.all()) {
    const auto network = networks_.find(lease.network);
    if (network != networks_.end()) rules.guests.push_back(guestPortOf(lease, network->second));
  }
  firewall_.apply();
}

void BridgeNetwork::restore(const std::vector<NetworkSpec>& networks) {
  const std::lock_guard lock(mutex_);
  for (const NetworkSpec& network : networks) {
    try {
      checkBridgeName(network.bridge);
      make(network);
    } catch (const Error& error) {
      log::error("restore network " + network.name + ": " + error.what());
    }
  }
  sweepBridges();
  leases_.removeIf(
      [&](const Lease& lease) { return !lease.spare() && !networks_.contains(lease.network); });
  applyRules();
  namesChanged();
}

void BridgeNetwork::sweepBridges() {
  std::set<std::string> known;
  for (const auto& [id, network] : networks_) known.insert(network.bridge);
  for (const LinkInfo& link : links_.list("")) {
    if (link.alias != alias_ || known.contains(link.name)) continue;
    log::info("network: removing " + link.name + ", a bridge of no network");
    links_.remove(link.name);
  }
}

NetworkSpec BridgeNetwork::add(NetworkSpec wanted) {
  return inContext("create network " + wanted.name, [&] {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> ours;
    for (const auto& [id, network] : networks_) ours.push_back(network.bridge);
    NetworkSpec network =
        completeNetwork(std::move(wanted), specs(), links_.takenSubnets(ours), tag_);
    if (network.bridge.empty()) {
      network.bridge = bridge_prefix_ + network.id.substr(0, kBridgeIdCharacters);
    }
    checkBridgeName(network.bridge);
    if (links_.exists(network.bridge)) {
      throw Error(ErrorKind::kConflict, "interface " + network.bridge + " exists already");
    }
    make(network);
    try {
      applyRules();
    } catch (...) {
      unmake(network);
      throw;
    }
    namesChanged();
    return network;
  });
}

void BridgeNetwork::drop(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = networks_.find(id);
  if (found == networks_.end()) return;
  for (const Lease& lease : leases_.all()) {
    if (lease.network != id) continue;
    throw Error(ErrorKind::kForbidden, "network " + found->second.name + " has active endpoints");
  }
  unmake(NetworkSpec(found->second));
  applyRules();
  namesChanged();
}

void BridgeNetwork::shutdown() {
  watch_.reset();
  stopServing();
  const std::lock_guard lock(mutex_);
  firewall_.remove();
  leases_.removeIf([](const Lease&) { return true; });
  for (const auto& link : links_.list(tap_prefix_)) links_.remove(link.name);
  networks_.clear();
  sweepBridges();
}

std::unique_ptr<Network> Network::create(const NetworkOptions& options) {
  return inContext("set up the network", [&]() -> std::unique_ptr<Network> {
    if (options.without_root) return std::make_unique<UserNetwork>(options);
    return std::make_unique<BridgeNetwork>(options);
  });
}

}  // namespace hull::engine
