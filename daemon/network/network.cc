#include "daemon/network/network.h"

#include <fcntl.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "daemon/network/address.h"
#include "daemon/network/dns_forwarder.h"
#include "daemon/network/firewall.h"
#include "daemon/network/leases.h"
#include "daemon/network/links.h"
#include "daemon/network/loop_thread.h"
#include "daemon/network/published_ports.h"

namespace hull::engine {

namespace {

constexpr const char* kTapPrefix = "hull-";
constexpr size_t kTapNameRandomBytes = 4;
constexpr uint16_t kMtu = 1500;
constexpr uint16_t kDnsPort = 53;
constexpr size_t kMaxInterfaceNameBytes = 15;  // IFNAMSIZ - 1

// Names of interfaces go into nftables' text.
void checkBridgeName(const std::string& name) {
  const bool fits =
      !name.empty() && name.size() <= kMaxInterfaceNameBytes &&
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.-") == std::string::npos;
  if (!fits || name.starts_with(kTapPrefix)) {
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

class BridgeNetwork final : public Network {
 public:
  explicit BridgeNetwork(const NetworkOptions& options);
  ~BridgeNetwork() override;

  Attachment attach(const std::string& container_id) override;
  Attachment reattach(const std::string& container_id) override;
  void detach(const std::string& container_id) override;
  std::vector<PortMapping> publish(const std::string& container_id,
                                   const std::vector<PortMapping>& ports) override;
  void unpublish(const std::string& container_id) override {
    if (ports_) ports_->unpublish(container_id);
  }
  std::string gateway() const override { return formatAddress(subnet_.gateway()); }
  std::string subnet() const override { return formatSubnet(subnet_); }
  void shutdown() override;

 private:
  Subnet pickSubnet(const std::string& wanted);
  std::vector<GuestPort> healLeftovers();
  void stopServing();
  void release(const std::string& container_id);
  Attachment attachmentOf(const Lease& lease) const;
  Lease leaseOf(const std::string& container_id) const;

  const NetworkOptions options_;
  Links links_;
  Firewall firewall_;
  Leases leases_;
  Subnet subnet_;
  LoopThread loop_;
  std::unique_ptr<DnsForwarder> dns_;  // on loop_
  std::unique_ptr<PublishedPorts> ports_;
  mutable std::mutex mutex_;  // links_, firewall_, leases_
};

BridgeNetwork::BridgeNetwork(const NetworkOptions& options)
    : options_(options),
      leases_(options.state_directory.empty() ? "" : options.state_directory + "/leases.json") {
  checkBridgeName(options_.bridge);
  if (!options_.state_directory.empty()) makeDirectories(options_.state_directory);
  subnet_ = pickSubnet(options_.subnet);
  leases_.setSubnet(subnet_);
  links_.ensureBridge(options_.bridge, subnet_.gateway(), subnet_.prefix_length);
  const auto guests = healLeftovers();
  enableForwarding();
  ports_ = std::make_unique<PublishedPorts>(loop_, options_.port_publisher);
  try {
    DnsOptions dns;
    dns.resolv_conf = options_.resolv_conf;
    dns_ = loop_.run([&] {
      return std::make_unique<DnsForwarder>(loop_.loop(), subnet_.gateway(), kDnsPort, dns);
    });
    firewall_.apply({options_.bridge, subnet_, dns_->port(), guests});
  } catch (...) {
    stopServing();
    throw;
  }
}

BridgeNetwork::~BridgeNetwork() {
  stopServing();
}

void BridgeNetwork::stopServing() {
  ports_.reset();
  if (dns_) loop_.run([this] { dns_.reset(); });
}

// What the bridge has already stays: VMs of an earlier engine process may live on it.
Subnet BridgeNetwork::pickSubnet(const std::string& wanted) {
  const auto parsed = parseSubnet(wanted);
  if (!parsed) {
    throw Error(ErrorKind::kInvalidArgument,
                "network: \"" + wanted + "\" is no subnet like 172.17.0.0/16");
  }
  const auto taken = links_.takenSubnets(options_.bridge);
  for (const Subnet& present : links_.subnetsOf(options_.bridge)) {
    if (chooseSubnet(present, taken) == present) return present;
    // The host has joined a network that ours hides: move out of its way.
    links_.remove(options_.bridge);
  }
  const auto chosen = chooseSubnet(leases_.subnet().value_or(*parsed), taken);
  if (!chosen) {
    throw Error(ErrorKind::kConflict,
                "network: every subnet from 172.16.0.0/16 to 172.31.0.0/16 is in use "
                "on this host (name a free one)");
  }
  if (*chosen != *parsed) {
    log::info("network: " + wanted + " is not free, using " + formatSubnet(*chosen));
  }
  return *chosen;
}

// Taps that no VMM holds are leftovers of dead VMs, and so are leases without a tap.
std::vector<GuestPort> BridgeNetwork::healLeftovers() {
  std::set<std::string> alive;
  for (const auto& link : links_.list(kTapPrefix)) {
    if (link.carrier) {
      alive.insert(link.name);
    } else {
      log::info("network: removing " + link.name +
                ", left behind by a virtual machine that is gone");
      links_.remove(link.name);
    }
  }
  std::vector<GuestPort> guests;
  const auto leases = leases_.all();
  for (const auto& [container, lease] : leases) {
    if (alive.contains(lease.interface)) {
      guests.push_back({lease.interface, lease.address});
    } else {
      leases_.remove(container);
    }
  }
  return guests;
}

Attachment BridgeNetwork::attachmentOf(const Lease& lease) const {
  Attachment attachment;
  attachment.interface = lease.interface;
  attachment.mac = macOf(lease.address);
  attachment.address = formatAddress(lease.address);
  attachment.prefix_length = subnet_.prefix_length;
  attachment.gateway = formatAddress(subnet_.gateway());
  attachment.mtu = kMtu;
  return attachment;
}

Attachment BridgeNetwork::attach(const std::string& container_id) {
  return inContext("attach to network", [&] {
    const std::lock_guard lock(mutex_);
    release(container_id);  // of an earlier run that was not detached
    const Lease lease = leases_.add(container_id, kTapPrefix + randomHex(kTapNameRandomBytes));
    try {
      Attachment attachment = attachmentOf(lease);
      attachment.tap = links_.createTap(lease.interface, options_.bridge, kMtu);
      firewall_.addGuest({lease.interface, lease.address});
      return attachment;
    } catch (...) {
      release(container_id);
      throw;
    }
  });
}

Lease BridgeNetwork::leaseOf(const std::string& container_id) const {
  const std::lock_guard lock(mutex_);
  const auto lease = leases_.find(container_id);
  if (!lease) {
    throw Error(ErrorKind::kNotFound,
                "container " + container_id + " is not attached to the network");
  }
  return *lease;
}

Attachment BridgeNetwork::reattach(const std::string& container_id) {
  return attachmentOf(leaseOf(container_id));
}

void BridgeNetwork::detach(const std::string& container_id) {
  unpublish(container_id);
  const std::lock_guard lock(mutex_);
  release(container_id);
}

void BridgeNetwork::release(const std::string& container_id) {
  const auto lease = leases_.find(container_id);
  if (!lease) return;
  firewall_.removeGuest({lease->interface, lease->address});
  links_.remove(lease->interface);
  leases_.remove(container_id);
}

std::vector<PortMapping> BridgeNetwork::publish(const std::string& container_id,
                                                const std::vector<PortMapping>& ports) {
  return ports_->publish(container_id, leaseOf(container_id).address, ports);
}

void BridgeNetwork::shutdown() {
  stopServing();
  const std::lock_guard lock(mutex_);
  firewall_.remove();
  const auto leases = leases_.all();
  for (const auto& [container, lease] : leases) leases_.remove(container);
  for (const auto& link : links_.list(kTapPrefix)) links_.remove(link.name);
  links_.remove(options_.bridge);
}

}  // namespace

std::unique_ptr<Network> Network::create(const NetworkOptions& options) {
  return inContext("set up the network", [&] { return std::make_unique<BridgeNetwork>(options); });
}

}  // namespace hull::engine
