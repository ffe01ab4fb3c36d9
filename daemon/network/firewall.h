// The engine's packet rules: table "inet hull" (masquerading, what may be forwarded) and table
// "bridge hull" (a guest sends only with its own MAC and address), through libnftables. Each is
// replaced in one transaction; no other table is looked at or touched. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "daemon/network/address.h"

struct nft_ctx;

namespace hull::engine {

struct GuestPort {
  std::string interface;  // its tap
  uint32_t address = 0;
};

struct FirewallRules {
  std::string bridge;
  Subnet subnet;
  uint16_t dns_port = 53;  // another one: guests' queries to the gateway are redirected to it
  std::vector<GuestPort> guests;
};

class Firewall {
 public:
  Firewall();
  ~Firewall();
  Firewall(const Firewall&) = delete;
  Firewall& operator=(const Firewall&) = delete;

  void apply(const FirewallRules& rules);
  void addGuest(const GuestPort& guest);
  void removeGuest(const GuestPort& guest);  // not there: nothing to do
  void remove();

  // The text given to nftables, for tests.
  static std::string inetTable(const FirewallRules& rules);
  static std::string bridgeTable(const FirewallRules& rules);

 private:
  bool run(const std::string& commands, std::string& error);

  nft_ctx* context_;
  bool filters_spoofing_ = false;
};

}  // namespace hull::engine
