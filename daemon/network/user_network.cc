#include "daemon/network/user_network.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/socket_address.h"
#include "base/udp_relay.h"
#include "daemon/network/network_plan.h"
#include "daemon/network/passt.h"
#include "daemon/network/published_ports.h"
#include "daemon/network/tcp_relay.h"

namespace hull::engine {

namespace {

constexpr const char* kFirstUserPort = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
constexpr uint16_t kUsualFirstUserPort = 1024;
// To these passt would connect on the host itself: "this host" and loopback (RFC 6890).
constexpr Subnet kThisHost{0, 8}, kLoopback{uint32_t{127} << 24, 8};
constexpr int kAttemptsAtAnyPort = 64;

Error notWithoutRoot(const std::string& what, const std::string& next_step) {
  return Error(ErrorKind::kNotSupported,
               what +
                   " needs an engine that runs as root: without root each container has a "
                   "network of its own, in a passt process (" +
                   next_step + ")");
}

// Calls `use` with the address and mask of each of the host's IPv4 interfaces.
template <typename Use>
void eachAddress(Use&& use) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) < 0) throw sysError("list this host's addresses");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owned(list, freeifaddrs);
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (!at->ifa_addr || !at->ifa_netmask || at->ifa_addr->sa_family != AF_INET) continue;
    if ((at->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const auto number = [](const sockaddr* address) {
      return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
    };
    use(number(at->ifa_addr), number(at->ifa_netmask));
  }
}

uint16_t firstUserPort() {
  uint16_t port = kUsualFirstUserPort;
  try {
    const std::string text = readFile(kFirstUserPort, 64);
    std::from_chars(text.data(), text.data() + text.size(), port);
  } catch (const Error&) {
    // The kernel's default.
  }
  return port;
}

Subnet blockedSubnet(const std::string& text) {
  if (const auto address = parseAddress(text)) return {*address, 32};
  if (const auto subnet = parseSubnet(text)) return *subnet;
  throw Error(ErrorKind::kInvalidArgument,
              "\"" + text + "\" is no address or subnet that can be blocked");
}

// A socket that holds the port until passt has it.
Fd hold(const PortMapping& port) {
  const auto address = SocketAddress::parse(port.host_address, port.host_port);
  if (!address) {
    throw Error(ErrorKind::kInvalidArgument, "\"" + port.host_address + "\" is no address");
  }
  if (address->family() != AF_INET) {
    throw Error(ErrorKind::kNotSupported,
                "an engine without root publishes ports on IPv4 addresses only");
  }
  return port.protocol == "udp" ? bindUdp(*address) : listenTcp(*address);
}

}  // namespace

UserNetwork::Host UserNetwork::thisHost() {
  Host host;
  host.subnets = [] {
    std::vector<Subnet> subnets;
    eachAddress([&](uint32_t address, uint32_t mask) {
      subnets.push_back({address & mask, static_cast<uint8_t>(__builtin_popcount(mask))});
    });
    return subnets;
  };
  host.addresses = [] {
    std::vector<uint32_t> addresses;
    eachAddress([&](uint32_t address, uint32_t) { addresses.push_back(address); });
    return addresses;
  };
  host.first_user_port = firstUserPort;
  return host;
}

UserNetwork::UserNetwork(const NetworkOptions& options, Host host)
    : passt_(options.passt), host_(std::move(host)) {
  if (passt_.empty()) {
    throw Error(ErrorKind::kUnavailable,
                "an engine without root needs passt, which this host does not have (apt-get "
                "install passt)");
  }
  if (!options.open_host_ports.empty()) {
    throw notWithoutRoot("--open-host-port",
                         "give a container --add-host host.docker.internal:host-gateway");
  }
  if (!options.port_publisher.empty()) {
    throw notWithoutRoot("--port-publisher", "leave the option away");
  }
  blocked_ = {kThisHost, kLoopback};
  for (const std::string& text : options.blocked) blocked_.push_back(blockedSubnet(text));
  const auto wanted = parseSubnet(options.subnet);
  if (!wanted) {
    throw Error(ErrorKind::kInvalidArgument,
                "\"" + options.subnet + "\" is no subnet like 172.17.0.0/16");
  }
  network_.id = network_.name = kDefaultNetwork;
  // One that the host uses would hide part of the host's world from the guests.
  network_.subnet = chooseSubnet(*wanted, host_.subnets()).value_or(*wanted);
  network_.gateway = network_.subnet->gateway();
  network_.mtu = kPasstMtu;
}

void UserNetwork::restore(const std::vector<NetworkSpec>& networks) {
  for (const NetworkSpec& network : networks) {
    log::warning("network " + network.name +
                 ": an engine without root has none but the default one; it is left out");
  }
}

NetworkSpec UserNetwork::add(NetworkSpec wanted) {
  throw notWithoutRoot("network " + wanted.name,
                       "let containers meet at published ports of host.docker.internal, or use an "
                       "engine that runs as root");
}

std::optional<NetworkSpec> UserNetwork::find(const std::string& id) const {
  return id == network_.id ? std::optional(network_) : std::nullopt;
}

// --- cards ---

Attachment UserNetwork::attachmentFor(const std::string& container_id,
                                      const EndpointSpec& endpoint) const {
  // Alone in its network: there are no other leases.
  Attachment made = attachmentOf(planEndpoint(network_, {}, container_id, endpoint), &network_);
  made.blocked = blocked_;
  if (endpoint.reaches_host) return made;
  for (const uint32_t address : host_.addresses()) {
    if (address != network_.gateway) made.blocked.push_back({address, 32});
  }
  return made;
}

Attachment UserNetwork::attach(const std::string& container_id, const EndpointSpec& endpoint,
                               bool running) {
  if (running) {
    throw notWithoutRoot("connecting a running container to a network",
                         "stop it, connect it and start it again");
  }
  if (endpoint.network != network_.id) {
    throw Error(ErrorKind::kNotFound, "network " + endpoint.network + " not found");
  }
  return inContext("attach to network", [&] {
    Attachment made = attachmentFor(container_id, endpoint);
    PasstOptions options{passt_,           *network_.subnet,      *parseAddress(made.address),
                         network_.gateway, endpoint.reaches_host, {}};
    const std::lock_guard lock(mutex_);
    options.ports = take(container_id, endpoint.ports);
    ports_[container_id] = options.ports;
    made.passt = passtCommand(options);
    return made;
  });
}

std::optional<Attachment> UserNetwork::disconnect(const std::string&, const std::string& network) {
  if (network != network_.id) return std::nullopt;
  throw notWithoutRoot("disconnecting a running container", "stop it first");
}

std::vector<Attachment> UserNetwork::reattach(const std::string& container_id) {
  std::vector<Attachment> cards;
  cards.push_back(attachmentFor(container_id, {}));
  return cards;
}

void UserNetwork::detach(const std::string& container_id) {
  const std::lock_guard lock(mutex_);
  ports_.erase(container_id);
}

// --- ports ---

// By a container whose passt may not have it yet.
bool UserNetwork::taken(const PortMapping& port) const {
  const auto clashes = [&](const PortMapping& other) {
    return other.protocol == port.protocol && other.host_port == port.host_port &&
           (other.host_address == port.host_address || other.host_address == "0.0.0.0" ||
            port.host_address == "0.0.0.0");
  };
  return std::any_of(ports_.begin(), ports_.end(), [&](const auto& each) {
    return std::any_of(each.second.begin(), each.second.end(), clashes);
  });
}

std::vector<PortMapping> UserNetwork::take(const std::string& container_id,
                                           const std::vector<PortMapping>& ports) {
  const uint16_t first_port = host_.first_user_port();
  std::vector<Fd> held;  // until all are chosen, so that none is chosen twice
  std::vector<PortMapping> real;
  const auto tryPort = [&](PortMapping port) {
    if (port.host_port != 0 && port.host_port < first_port) {
      throw Error(ErrorKind::kForbidden,
                  "an engine without root publishes ports from " + std::to_string(first_port) +
                      " on (choose a higher one, or let users have it: sysctl "
                      "net.ipv4.ip_unprivileged_port_start=" +
                      std::to_string(port.host_port) + ")");
    }
    for (int attempt = 0; attempt < kAttemptsAtAnyPort; ++attempt) {
      Fd socket = hold(port);
      PortMapping chosen = port;
      chosen.host_port_last = 0;
      chosen.host_port = SocketAddress::local(socket.get()).port();
      const bool free = !taken(chosen);
      held.push_back(std::move(socket));
      if (free) return chosen;
      if (port.host_port != 0) break;
    }
    throw Error(ErrorKind::kConflict, "address already in use");
  };
  for (PortMapping wanted : ports) {
    if (wanted.host_address.empty()) wanted.host_address = "0.0.0.0";
    for (PortMapping tried = wanted;; ++tried.host_port) {
      try {
        real.push_back(tryPort(tried));
        break;
      } catch (const Error& error) {
        const bool more = tried.host_port != 0 && tried.host_port < wanted.host_port_last;
        if (error.kind() == ErrorKind::kConflict && more) continue;
        throw bindFailure(container_id, wanted, error);
      }
    }
  }
  return real;
}

// What attach() has taken, or what a passt of an earlier engine process has.
std::vector<PortMapping> UserNetwork::publish(const std::string& container_id,
                                              const std::vector<PortMapping>& ports) {
  const std::lock_guard lock(mutex_);
  return ports_.emplace(container_id, ports).first->second;
}

}  // namespace hull::engine
