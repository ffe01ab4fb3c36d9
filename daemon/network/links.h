// Network interfaces through rtnetlink (libnl): the bridge, the taps, and what else the host has.
// Calls block briefly; one thread at a time. Needs CAP_NET_ADMIN.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "daemon/network/address.h"

struct nl_sock;
struct rtnl_link;

namespace hull::engine {

struct LinkInfo {
  std::string name;
  bool carrier = false;  // of a tap: some process holds it
  bool up = false;
  std::string alias;
};

struct BridgeSpec {
  std::string name;
  std::string alias;  // says whose it is
  uint32_t address = 0;
  uint8_t prefix_length = 0;
  std::optional<Address6> address6;  // none: the bridge and its ports speak no IPv6
  uint8_t prefix_length6 = 0;
  uint16_t mtu = 1500;
};

class Links {
 public:
  Links();  // throws
  ~Links();
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  // Makes or completes the bridge: addresses, MAC (fixed: it must not follow the ports'), up.
  void ensureBridge(const BridgeSpec& spec);
  // A persistent tap, down and in no bridge; its descriptor is for the VMM.
  Fd createTap(const std::string& name);
  void putIntoBridge(const std::string& name, const std::string& bridge, uint16_t mtu);
  void takeOutOfBridge(const std::string& name);  // and down
  void remove(const std::string& name);           // no such interface: nothing to do
  std::optional<LinkInfo> find(const std::string& name);
  bool exists(const std::string& name) { return find(name).has_value(); }
  std::vector<LinkInfo> list(const std::string& prefix);

  // Subnets of routes and addresses, but for those of `except`; without the default route.
  std::vector<Subnet> takenSubnets(const std::vector<std::string>& except);
  std::vector<Subnet> subnetsOf(const std::string& name);

 private:
  void change(const std::string& name, rtnl_link* change);
  void assign(int index, const void* address, size_t size, uint8_t prefix_length,
              const std::string& what);
  std::vector<std::pair<int, Subnet>> addresses();

  nl_sock* socket_ = nullptr;
};

}  // namespace hull::engine
