// The Network of local_machine.h.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/fd.h"
#include "daemon/network/network_plan.h"
#include "daemon/testing/local_machine.h"

namespace hull::engine::testing {

namespace {

// Plans as the real one does, and makes nothing of it.
class LocalNetwork final : public Network {
 public:
  LocalNetwork() {
    NetworkSpec usual;
    usual.id = usual.name = kDefaultNetwork;
    usual.bridge = "hull-test";
    usual.subnet = parseSubnet("172.17.0.0/16");
    networks_[usual.id] = completeNetwork(usual, {}, {}, "test");
  }
  void restore(const std::vector<NetworkSpec>& networks) override {
    const std::lock_guard lock(mutex_);
    for (const NetworkSpec& network : networks) networks_[network.id] = network;
  }
  NetworkSpec add(NetworkSpec wanted) override {
    const std::lock_guard lock(mutex_);
    std::vector<NetworkSpec> present;
    for (const auto& [id, network] : networks_) present.push_back(network);
    const NetworkSpec made = completeNetwork(std::move(wanted), present, {}, "test");
    return networks_[made.id] = made;
  }
  void drop(const std::string& id) override {
    const std::lock_guard lock(mutex_);
    for (const Lease& lease : leases_.all()) {
      if (lease.network == id) throw Error(ErrorKind::kForbidden, "has active endpoints");
    }
    networks_.erase(id);
  }
  std::optional<NetworkSpec> find(const std::string& id) const override {
    const std::lock_guard lock(mutex_);
    const auto found = networks_.find(id);
    return found == networks_.end() ? std::nullopt : std::optional(found->second);
  }
  Attachment attach(const std::string& container, const EndpointSpec& endpoint,
                    bool running) override {
    const std::lock_guard lock(mutex_);
    const auto network = networks_.find(endpoint.network);
    if (network == networks_.end()) {
      throw Error(ErrorKind::kNotFound, "network " + endpoint.network + " not found");
    }
    Lease lease = planEndpoint(network->second, leases_.all(), container, endpoint);
    const auto cards = leases_.of(container);
    lease.slot = cards.empty() ? 0 : cards.back().slot + 1;
    if (running) {
      const auto spare =
          std::find_if(cards.begin(), cards.end(), [](const Lease& card) { return card.spare(); });
      if (spare == cards.end()) throw Error(ErrorKind::kConflict, "no spare network card left");
      lease.slot = spare->slot;
    }
    return place(lease, running);
  }
  std::optional<Attachment> addSpare(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    Lease lease;
    lease.container = container;
    const auto cards = leases_.of(container);
    lease.slot = cards.empty() ? 0 : cards.back().slot + 1;
    lease.mac = freeMac({2, 0x43}, leases_.all());
    return place(lease, false);
  }
  std::optional<Attachment> disconnect(const std::string& container,
                                       const std::string& network) override {
    const std::lock_guard lock(mutex_);
    const Lease* found = leases_.find(container, network);
    if (!found) return std::nullopt;
    Lease spare;
    spare.container = container;
    spare.slot = found->slot;
    spare.mac = found->mac;
    return place(spare, true);
  }
  std::vector<Attachment> reattach(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    std::vector<Attachment> found;
    for (const Lease& lease : leases_.of(container)) found.push_back(attachment(lease));
    return found;
  }
  void detach(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    leases_.removeIf([&](const Lease& lease) { return lease.container == container; });
    ports_.erase(container);
  }
  void rename(const std::string&, const std::string&, const std::string&) override {}
  std::vector<PortMapping> publish(const std::string& container,
                                   const std::vector<PortMapping>& ports) override {
    const std::lock_guard lock(mutex_);
    std::vector<PortMapping> result = ports;
    for (PortMapping& port : result) {
      if (port.host_port == 0) port.host_port = next_port_++;
      for (const auto& [owner, used] : ports_) {
        if (owner != container && used.contains(port.host_port)) {
          throw Error(ErrorKind::kConflict,
                      "driver failed programming external connectivity on endpoint: Bind for " +
                          port.host_address + ":" + std::to_string(port.host_port) +
                          " failed: port is already allocated");
        }
      }
    }
    for (const PortMapping& port : result) ports_[container].insert(port.host_port);
    return result;
  }
  void unpublish(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    ports_.erase(container);
  }
  void shutdown() override {}

 private:
  Attachment attachment(const Lease& lease) const {
    const auto network = networks_.find(lease.network);
    return attachmentOf(lease, network == networks_.end() ? nullptr : &network->second);
  }
  Attachment place(const Lease& lease, bool running) {
    leases_.put(lease);
    Attachment made = attachment(lease);
    if (!running) made.tap = makeMemfd("tap");
    return made;
  }

  mutable std::mutex mutex_;
  std::map<std::string, NetworkSpec> networks_;
  Leases leases_{""};
  std::map<std::string, std::set<uint16_t>> ports_;
  uint16_t next_port_ = 49153;
};

}  // namespace

std::shared_ptr<Network> makeLocalNetwork() {
  return std::make_shared<LocalNetwork>();
}

}  // namespace hull::engine::testing
