// Network with bridges and taps of the kernel (network.h says what it does); network.cc has the
// networks, network_cards.cc cards and ports. Any thread: one mutex guards all but the DNS servers
// and relays, which live on the loop's thread. That thread never takes the mutex.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/network/dns_forwarder.h"
#include "daemon/network/firewall.h"
#include "daemon/network/firewall_watch.h"
#include "daemon/network/leases.h"
#include "daemon/network/links.h"
#include "daemon/network/loop_thread.h"
#include "daemon/network/name_table.h"
#include "daemon/network/network.h"
#include "daemon/network/published_ports.h"

namespace hull::engine {

class BridgeNetwork final : public Network {
 public:
  explicit BridgeNetwork(const NetworkOptions& options);
  ~BridgeNetwork() override {
    watch_.reset();
    stopServing();
  }

  void restore(const std::vector<NetworkSpec>& networks) override;
  NetworkSpec add(NetworkSpec wanted) override;
  void drop(const std::string& id) override;
  std::optional<NetworkSpec> find(const std::string& id) const override;

  Attachment attach(const std::string& container_id, const EndpointSpec& endpoint,
                    bool running) override;
  std::optional<Attachment> addSpare(const std::string& container_id) override;
  std::optional<Attachment> disconnect(const std::string& container_id,
                                       const std::string& network) override;
  std::vector<Attachment> reattach(const std::string& container_id) override;
  void detach(const std::string& container_id) override;
  void rename(const std::string& container_id, const std::string& from,
              const std::string& to) override;

  std::vector<PortMapping> publish(const std::string& container_id,
                                   const std::vector<PortMapping>& ports) override;
  void unpublish(const std::string& container_id) override;
  void shutdown() override;

 private:
  std::string pickBridge();
  Subnet pickSubnet(const std::string& bridge);
  void makeDefault();
  void healLeftovers();
  void sweepBridges();
  void stopServing();
  // With mutex_ held:
  const NetworkSpec& need(const std::string& id) const;
  std::vector<NetworkSpec> specs() const;
  void make(const NetworkSpec& network);
  void unmake(const NetworkSpec& network);
  void applyRules();
  void connect(const Lease& lease, const NetworkSpec& network);
  void take(Lease& lease, bool running, bool wants_mac);
  void makeSpare(const Lease& lease);
  void releaseCard(const Lease& lease);
  void namesChanged() { names_.set(specs(), leases_.all()); }

  const NetworkOptions options_;
  const std::string tag_;
  const std::string tap_prefix_, bridge_prefix_, alias_;
  Links links_;
  Firewall firewall_;
  Leases leases_;
  NameTable names_;
  std::map<std::string, NetworkSpec> networks_;  // by id
  LoopThread loop_;
  std::map<std::string, std::unique_ptr<DnsForwarder>> dns_;  // by network's id; on loop_
  std::unique_ptr<PublishedPorts> ports_;
  std::multimap<std::string, PublishedRule> published_;  // by container
  mutable std::mutex mutex_;              // links_, firewall_, leases_, networks_, dns_
  std::unique_ptr<FirewallWatch> watch_;  // goes first: it calls back
};

GuestPort guestPortOf(const Lease& lease, const NetworkSpec& network);

}  // namespace hull::engine
