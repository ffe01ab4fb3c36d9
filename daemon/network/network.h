// The default network: bridge hull0, one tap per VM, addresses, NAT to the outside, a DNS forwarder
// on the gateway address, published TCP ports. All host state lives in the interfaces hull0 and
// hull-*, and in one nftables table of our own; it is rebuilt at start and removed by shutdown().
// Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"

namespace hull::engine {

struct NetworkOptions {
  std::string bridge = "hull0";
  std::string subnet = "172.17.0.0/16";  // moved to the next free 172.x/16 when it is taken
  std::string port_publisher;            // unix socket of `hull machine`'s port relay; empty: none
  std::string state_directory;           // leases survive the engine; empty: they do not
  std::string resolv_conf = "/etc/resolv.conf";  // the host's resolvers, for the guests' DNS
};

struct Attachment {
  std::string interface;  // tap on the host
  Fd tap;                 // for the VMM (IFF_VNET_HDR); invalid when re-attached after a restart
  std::array<uint8_t, 6> mac{};
  std::string address;  // "172.17.0.2"
  uint8_t prefix_length = 16;
  std::string gateway;  // also the DNS server
  uint16_t mtu = 1500;
};

struct PortMapping {
  std::string host_address = "0.0.0.0";
  uint16_t host_port = 0;  // 0: any free one
  uint16_t guest_port = 0;
};

class Network {
 public:
  // Throws with the missing privilege or module named. Taps that no VMM holds any more are removed
  // with their leases; those of VMs that live on are kept for reattach().
  static std::unique_ptr<Network> create(const NetworkOptions& options);
  virtual ~Network() = default;

  virtual Attachment attach(const std::string& container_id) = 0;
  virtual Attachment reattach(
      const std::string& container_id) = 0;                  // adopted VM: lease, no new tap fd
  virtual void detach(const std::string& container_id) = 0;  // tap, lease, ports; idempotent

  // All or none; returns the mappings with their real ports. A port in use is kConflict with
  // Docker's words ("driver failed programming external connectivity …: Bind for 0.0.0.0:80
  // failed: port is already allocated").
  virtual std::vector<PortMapping> publish(const std::string& container_id,
                                           const std::vector<PortMapping>& ports) = 0;
  virtual void unpublish(const std::string& container_id) = 0;

  virtual std::string gateway() const = 0;
  virtual std::string subnet() const = 0;
  virtual void shutdown() = 0;
};

}  // namespace hull::engine
