#include "daemon/network/network_plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"

namespace hull::engine {

namespace {

constexpr uint16_t kMinMtu = 68, kMinMtuIpv6 = 1280, kMaxMtu = 65521;
constexpr size_t kMaxNameBytes = 253, kMaxLabelBytes = 63;
constexpr size_t kMaxNames = 64;  // of one endpoint

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

void completeIpv4(NetworkSpec& wanted, const std::vector<NetworkSpec>& present,
                  const std::vector<Subnet>& taken) {
  std::vector<Subnet> others;
  for (const NetworkSpec& network : present) others.push_back(*network.subnet);
  if (wanted.subnet) {
    for (const Subnet& other : others) {
      if (!wanted.subnet->overlaps(other)) continue;
      throw Error(ErrorKind::kConflict, "Pool overlaps with other one on this address space: " +
                                            formatSubnet(*wanted.subnet) + " and " +
                                            formatSubnet(other));
    }
    for (const Subnet& other : taken) {
      if (!wanted.subnet->overlaps(other)) continue;
      throw Error(ErrorKind::kConflict,
                  "Pool overlaps with a network of this host: " + formatSubnet(*wanted.subnet) +
                      " and " + formatSubnet(other));
    }
  } else {
    others.insert(others.end(), taken.begin(), taken.end());
    wanted.subnet = chooseSubnet(others);
    if (!wanted.subnet) {
      throw Error(ErrorKind::kConflict,
                  "could not find an available, non-overlapping IPv4 address pool among the "
                  "defaults to assign to the network: name a free one with --subnet, or remove "
                  "networks that are not used (network prune)");
    }
  }
  if (wanted.gateway == 0) wanted.gateway = wanted.subnet->gateway();
  if (!wanted.subnet->contains(wanted.gateway) || wanted.gateway == wanted.subnet->network ||
      wanted.gateway == wanted.subnet->last()) {
    invalid("invalid network config: no matching subnet for gateway " +
            formatAddress(wanted.gateway));
  }
  if (wanted.range && !(wanted.subnet->contains(wanted.range->network) &&
                        wanted.range->prefix_length >= wanted.subnet->prefix_length)) {
    invalid("invalid network config: the range " + formatSubnet(*wanted.range) +
            " is not within the subnet " + formatSubnet(*wanted.subnet));
  }
}

// fdXX:XXXX:XXXX:N::/64 (RFC 4193): the global id from the tag, N from the network's id.
Subnet6 uniqueLocal(const std::string& tag, const std::string& id, unsigned attempt) {
  const std::string global = sha256Hex("hull ula " + tag);
  const std::string subnet = sha256Hex("hull subnet " + id + std::to_string(attempt));
  const auto group = [](const std::string& hex, size_t at) { return hex.substr(at, 4) + ":"; };
  return *parseSubnet6("fd" + global.substr(0, 2) + ":" + group(global, 2) + group(global, 6) +
                       group(subnet, 0) + ":/64");
}

void completeIpv6(NetworkSpec& wanted, const std::vector<NetworkSpec>& present,
                  const std::string& tag) {
  const auto overlapping = [&]() -> const NetworkSpec* {
    for (const NetworkSpec& network : present) {
      if (network.subnet6 && network.subnet6->overlaps(*wanted.subnet6)) return &network;
    }
    return nullptr;
  };
  if (wanted.subnet6) {
    if (overlapping()) {
      throw Error(ErrorKind::kConflict, "Pool overlaps with other one on this address space: " +
                                            formatSubnet6(*wanted.subnet6));
    }
  } else {
    unsigned attempt = 0;
    do {
      wanted.subnet6 = uniqueLocal(tag, wanted.id, attempt++);
    } while (overlapping());
  }
  if (!wanted.gateway6) wanted.gateway6 = wanted.subnet6->host(1);
  if (!wanted.subnet6->contains(*wanted.gateway6)) {
    invalid("invalid network config: no matching subnet for gateway " +
            formatAddress6(*wanted.gateway6));
  }
}

uint32_t chooseAddress(const NetworkSpec& network, const std::vector<Lease>& present,
                       const std::string& wanted) {
  const Subnet& subnet = *network.subnet;
  std::vector<uint32_t> taken{network.gateway};
  for (const Lease& lease : present) {
    if (lease.network == network.id) taken.push_back(lease.address);
  }
  std::sort(taken.begin(), taken.end());
  const auto isTaken = [&](uint32_t address) {
    return std::binary_search(taken.begin(), taken.end(), address);
  };
  if (!wanted.empty()) {
    const auto address = parseAddress(wanted);
    if (!address) invalid("invalid IPv4 address: " + wanted);
    if (!subnet.contains(*address) || *address == subnet.network || *address == subnet.last()) {
      invalid("no configured subnet or ip-range contain the IP address " + wanted + " (" +
              network.name + " is " + formatSubnet(subnet) + ")");
    }
    if (isTaken(*address)) {
      throw Error(ErrorKind::kForbidden,
                  "Address already in use: " + wanted + " in network " + network.name);
    }
    return *address;
  }
  const Subnet& range = network.range ? *network.range : subnet;
  for (uint64_t address = range.network; address <= range.last(); ++address) {
    const auto candidate = static_cast<uint32_t>(address);
    if (candidate == subnet.network || candidate == subnet.last() || isTaken(candidate)) continue;
    return candidate;
  }
  throw Error(ErrorKind::kConflict,
              "no available IPv4 addresses on this network's address pools: " + network.name +
                  " (" + formatSubnet(range) + ")");
}

// The lower half of an IPv6 address is the IPv4 one: what is unique there is unique here.
Address6 chooseAddress6(const NetworkSpec& network, const std::vector<Lease>& present,
                        uint32_t address, const std::string& wanted) {
  const auto isTaken = [&](const Address6& candidate) {
    return candidate == *network.gateway6 ||
           std::any_of(present.begin(), present.end(), [&](const Lease& lease) {
             return lease.network == network.id && lease.address6 == candidate;
           });
  };
  if (!wanted.empty()) {
    const auto parsed = parseAddress6(wanted);
    if (!parsed) invalid("invalid IPv6 address: " + wanted);
    if (!network.subnet6->contains(*parsed)) {
      invalid("no configured subnet or ip-range contain the IP address " + wanted);
    }
    if (isTaken(*parsed)) {
      throw Error(ErrorKind::kForbidden, "Address already in use: " + wanted);
    }
    return *parsed;
  }
  const unsigned host_bits = std::min(128U - network.subnet6->prefix_length, 32U);
  const uint64_t mask = (uint64_t{1} << host_bits) - 1;
  uint64_t host = host_bits < 32 ? (address - network.subnet->network) & mask : address;
  for (uint64_t tries = 0; tries <= std::min<uint64_t>(mask, 65536); ++tries, ++host) {
    if ((host & mask) == 0) continue;
    const Address6 candidate = network.subnet6->host(host & mask);
    if (!isTaken(candidate)) return candidate;
  }
  throw Error(ErrorKind::kConflict,
              "no available IPv6 addresses on this network's address pools: " + network.name);
}

}  // namespace

std::string dnsName(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.empty() || name.size() > kMaxNameBytes) return {};
  std::string lower;
  size_t label = 0;
  for (const char c : name) {
    label = c == '.' ? 0 : label + 1;
    if (label > kMaxLabelBytes || static_cast<unsigned char>(c) <= ' ') return {};
    lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return lower;
}

std::array<uint8_t, 6> freeMac(std::array<uint8_t, 6> mac, const std::vector<Lease>& present) {
  const auto in_use = [&] {
    return std::any_of(present.begin(), present.end(),
                       [&](const Lease& lease) { return lease.mac == mac; });
  };
  while (in_use()) {
    const std::string random = randomHex(4);
    for (size_t i = 0; i < 4; ++i) {
      mac[2 + i] = static_cast<uint8_t>(std::stoul(random.substr(2 * i, 2), nullptr, 16));
    }
    mac[0] = 0x02;
    mac[1] = 0x43;  // none that an address gives
  }
  return mac;
}

NetworkSpec completeNetwork(NetworkSpec wanted, const std::vector<NetworkSpec>& present,
                            const std::vector<Subnet>& taken, const std::string& tag) {
  if (present.size() >= kMaxNetworks) {
    throw Error(ErrorKind::kConflict, "there are " + std::to_string(present.size()) +
                                          " networks already: remove one first (network prune)");
  }
  const uint16_t least = wanted.ipv6 ? kMinMtuIpv6 : kMinMtu;
  if (wanted.mtu < least || wanted.mtu > kMaxMtu) {
    invalid("invalid MTU " + std::to_string(wanted.mtu) + ": not between " + std::to_string(least) +
            " and " + std::to_string(kMaxMtu));
  }
  completeIpv4(wanted, present, taken);
  if (wanted.ipv6) completeIpv6(wanted, present, tag);
  return wanted;
}

Lease planEndpoint(const NetworkSpec& network, const std::vector<Lease>& present,
                   const std::string& container, const EndpointSpec& wanted) {
  Lease lease;
  lease.container = container;
  lease.network = network.id;
  lease.address = chooseAddress(network, present, wanted.address);
  if (network.ipv6) {
    lease.address6 = chooseAddress6(network, present, lease.address, wanted.address6);
  } else if (!wanted.address6.empty()) {
    invalid("network " + network.name + " has no IPv6: make it with --ipv6");
  }
  lease.mac = freeMac(macOf(lease.address), present);
  if (!wanted.mac.empty()) {
    const auto mac = parseMac(wanted.mac);
    if (!mac) invalid("invalid MAC address: " + wanted.mac);
    if (freeMac(*mac, present) != *mac) {
      throw Error(ErrorKind::kConflict, "MAC address " + wanted.mac + " is in use");
    }
    lease.mac = *mac;
  }
  for (const std::string& name : wanted.names) {
    const std::string plain = dnsName(name);
    if (plain.empty()) invalid("invalid network alias: \"" + name + "\"");
    if (std::find(lease.names.begin(), lease.names.end(), plain) == lease.names.end()) {
      lease.names.push_back(plain);
    }
  }
  if (lease.names.size() > kMaxNames) invalid("too many network aliases");
  lease.servers = wanted.servers;
  lease.reaches_host = wanted.reaches_host;
  return lease;
}

Attachment attachmentOf(const Lease& lease, const NetworkSpec* network) {
  Attachment made;
  made.slot = lease.slot;
  made.interface = lease.interface;
  made.mac = lease.mac;
  if (network == nullptr) return made;
  made.network = network->id;
  made.address = formatAddress(lease.address);
  made.prefix_length = network->subnet->prefix_length;
  made.resolver = formatAddress(network->gateway);
  if (!network->internal) made.gateway = made.resolver;
  if (lease.address6) {
    made.address6 = formatAddress6(*lease.address6);
    made.prefix_length6 = network->subnet6->prefix_length;
    if (!network->internal) made.gateway6 = formatAddress6(*network->gateway6);
  }
  made.mtu = network->mtu;
  return made;
}

}  // namespace hull::engine
