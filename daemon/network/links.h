// Network interfaces through rtnetlink (libnl): the bridge, the taps, and what else the host has.
// Calls block briefly; one thread at a time. Needs CAP_NET_ADMIN.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "daemon/network/address.h"

struct nl_sock;

namespace hull::engine {

struct LinkInfo {
  std::string name;
  bool carrier = false;  // of a tap: some process holds it
};

class Links {
 public:
  Links();  // throws
  ~Links();
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  // Makes or completes the bridge: address, MAC (fixed: it must not follow the ports'), up.
  void ensureBridge(const std::string& name, uint32_t address, uint8_t prefix_length);
  // A persistent tap that is a port of the bridge, up; its descriptor is for the VMM.
  Fd createTap(const std::string& name, const std::string& bridge, uint16_t mtu);
  void remove(const std::string& name);  // no such interface: nothing to do
  bool exists(const std::string& name);
  std::vector<LinkInfo> list(const std::string& prefix);

  // Subnets of routes and addresses, but for those of `except`; without the default route.
  std::vector<Subnet> takenSubnets(const std::string& except);
  std::vector<Subnet> subnetsOf(const std::string& name);

 private:
  void bringUp(const std::string& name, const std::string& master, uint16_t mtu);
  std::vector<Subnet> addresses(bool of, const std::string& name);

  nl_sock* socket_ = nullptr;
};

}  // namespace hull::engine
