// The host's side of containers' networks: one bridge per network, one tap per network card of a
// VM, addresses, NAT to the outside, a DNS server on each gateway address, published ports. What
// networks there shall be is the engine's affair: it gives their list at start and changes it. All
// host state lives in interfaces marked as this engine's and in one nftables table per family,
// named after it; it is rebuilt at start, and again when somebody flushes it, and removed by
// shutdown(). An engine without root has passt processes instead (user_network.h). Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "daemon/network/address.h"

namespace hull::engine {

inline constexpr const char* kDefaultNetwork = "bridge";  // id and name of the one always there
inline constexpr uint16_t kDefaultMtu = 1500;
inline constexpr size_t kMaxNetworks = 1024;
inline constexpr unsigned kMaxNetworksPerContainer = 7;  // a VM has one card more, to spare

struct NetworkOptions {
  std::string bridge = "hull0";
  std::string subnet = "172.17.0.0/16";  // moved to the next free 172.x/16 when it is taken
  std::string port_publisher;            // unix socket of `hull machine`'s port relay; empty: none
  std::string state_directory;           // leases survive the engine; empty: they do not
  std::string resolv_conf = "/etc/resolv.conf";  // the host's resolvers, for the guests' DNS
  std::string hosts = "/etc/hosts";              // names the host knows besides
  // IPv4 addresses and subnets no guest reaches: where clouds keep their credentials.
  std::vector<std::string> blocked{"169.254.169.254"};
  std::vector<std::string> open_host_ports;  // "5432/tcp": of the host, for every guest
  bool without_root = false;
  std::string passt;  // the program, without root
};

struct PortMapping {
  std::string host_address = "0.0.0.0";
  uint16_t host_port = 0;  // 0: any free one
  uint16_t guest_port = 0;
  std::string protocol = "tcp";  // or "udp"
  uint16_t host_port_last = 0;   // not 0: the first free one from host_port to this
};

struct NetworkSpec {
  std::string id;
  std::string name;
  std::string bridge;              // interface; empty: made from the id
  std::optional<Subnet> subnet;    // none: the next free one
  uint32_t gateway = 0;            // 0: the first address
  std::optional<Subnet> range;     // where addresses that nobody asked for come from
  bool ipv6 = false;               //
  std::optional<Subnet6> subnet6;  // none, with ipv6: a unique local one
  std::optional<Address6> gateway6;
  bool internal = false;  // no way out of it
  bool isolated = false;  // its guests do not reach each other (enable_icc=false)
  bool masquerade = true;
  uint16_t mtu = kDefaultMtu;
};

struct EndpointSpec {
  std::string network = kDefaultNetwork;  // id
  std::string address, address6;          // asked for; empty: any
  std::string mac;                        // asked for; empty: from the address
  std::vector<std::string> names;         // that others on the network find it by
  std::vector<std::string> servers;       // DNS servers to ask instead of the host's
  bool reaches_host = false;              // may use any service of the host
  std::vector<PortMapping> ports;         // that publish() will be asked for, and no others
};

struct Attachment {
  unsigned slot = 0;      // the guest's "eth<slot>"
  std::string interface;  // tap on the host
  Fd tap;                 // for the VMM (IFF_VNET_HDR); invalid for a card that the VM has already
  std::vector<std::string> passt;  // instead: the process at the other end, to be started with it
  std::vector<Subnet> blocked;     // that the VMM lets no packet to
  std::array<uint8_t, 6> mac{};
  std::string network;  // id; empty: a spare card
  std::string address;  // "172.17.0.2"
  uint8_t prefix_length = 16;
  std::string gateway;   // empty on an internal network
  std::string resolver;  // the network's DNS server
  std::string address6;  // empty: none
  uint8_t prefix_length6 = 64;
  std::string gateway6;
  uint16_t mtu = kDefaultMtu;
};

class Network {
 public:
  // Throws with the missing privilege or module named. Only the default network is there; taps that
  // no VMM holds any more are removed with their leases, those of VMs that live on are kept.
  static std::unique_ptr<Network> create(const NetworkOptions& options);
  virtual ~Network() = default;

  // --- networks ---
  // The ones the engine knows, at start: makes them again and removes others of this engine.
  // A network that cannot be made is logged and left out.
  virtual void restore(const std::vector<NetworkSpec>& networks) = 0;
  // Completes what is asked (subnet, gateway, bridge) and makes it. kConflict when it overlaps.
  virtual NetworkSpec add(NetworkSpec wanted) = 0;
  virtual void drop(const std::string& id) = 0;  // nobody is in it; idempotent
  virtual std::optional<NetworkSpec> find(const std::string& id) const = 0;

  // --- cards ---
  // A card in a network: a new one, or with `running` a spare one of a VM that runs (kConflict when
  // it has none).
  virtual Attachment attach(const std::string& container_id, const EndpointSpec& endpoint,
                            bool running = false) = 0;
  // nullopt: this kind of network connects no machine that runs.
  virtual std::optional<Attachment> addSpare(const std::string& container_id) = 0;
  // Takes a running VM's card out of the network; it is spare then. Nothing to do: nullopt.
  virtual std::optional<Attachment> disconnect(const std::string& container_id,
                                               const std::string& network) = 0;
  // A VM that an earlier engine started: its cards as they are. Throws kNotFound without any.
  virtual std::vector<Attachment> reattach(const std::string& container_id) = 0;
  virtual void detach(const std::string& container_id) = 0;  // cards and ports; idempotent
  virtual void rename(const std::string& container_id, const std::string& from,
                      const std::string& to) = 0;  // one of its names, in all networks

  // --- ports ---
  // All or none; returns the mappings with their real ports. A port in use is kConflict with
  // Docker's words ("driver failed programming external connectivity …: Bind for 0.0.0.0:80
  // failed: port is already allocated"). They lead to the container's first network.
  virtual std::vector<PortMapping> publish(const std::string& container_id,
                                           const std::vector<PortMapping>& ports) = 0;
  virtual void unpublish(const std::string& container_id) = 0;

  std::string gateway() const { return formatAddress(find(kDefaultNetwork)->gateway); }
  std::string subnet() const { return formatSubnet(*find(kDefaultNetwork)->subnet); }
  virtual void shutdown() = 0;
};

}  // namespace hull::engine
