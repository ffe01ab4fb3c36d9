// The engine's packet rules, in a table of its own per family ("inet" and "bridge"), through
// libnftables: which networks reach what, address translation, published ports, and that a guest
// sends only as itself. Each table is replaced in one transaction, so there is no moment with half
// of the rules; endpoints and ports come and go as set elements. No other table is looked at or
// touched. One thread at a time.
//
//   inet    forward      between networks nothing; out of internal ones nothing; in only answers
//                        and published ports; never to blocked addresses
//           input        of the host: names, ping, published ports, what is open; else refused
//           prerouting   published ports → guests; the DNS server where it has another port
//           postrouting  masquerading
//   bridge  prerouting   a tap's frames carry its own MAC and addresses (IPv4, ARP, IPv6, ND), no
//                        DHCP answers, no router advertisements, nothing but IP
//           forward      nothing between isolated guests
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "daemon/network/address.h"

struct nft_ctx;

namespace hull::engine {

struct GuestPort {
  std::string interface;  // its tap
  std::array<uint8_t, 6> mac{};
  uint32_t address = 0;
  std::optional<Address6> address6;
  bool reaches_host = false;
  bool isolated = false;  // reaches no other isolated guest
  bool operator==(const GuestPort&) const = default;
};

struct NetworkRules {
  std::string bridge;
  Subnet subnet;
  uint32_t gateway = 0;
  uint16_t dns_port = 53;  // another one: guests' queries to the gateway are redirected to it
  bool internal = false;
  bool isolated = false;
  bool masquerade = true;
};

struct PublishedRule {
  std::string protocol;       // "tcp", "udp"
  uint32_t host_address = 0;  // 0: any
  uint16_t host_port = 0;
  uint32_t guest = 0;
  uint16_t guest_port = 0;
  bool operator==(const PublishedRule&) const = default;
};

struct FirewallRules {
  std::string table = "hull";
  std::string tap_prefix = "hull-";
  std::vector<NetworkRules> networks;
  std::vector<GuestPort> guests;
  std::vector<PublishedRule> published;
  std::vector<std::string> blocked;          // addresses or subnets
  std::vector<std::string> open_host_ports;  // "tcp . 5432"
};

class Firewall {
 public:
  Firewall();
  ~Firewall();
  Firewall(const Firewall&) = delete;
  Firewall& operator=(const Firewall&) = delete;

  FirewallRules& rules() { return rules_; }  // change, then apply()
  void apply();
  bool restoreIfChanged();  // apply() when somebody has changed the tables; true: it was so
  void addGuest(const GuestPort& guest);
  void removeGuest(const std::string& interface);  // not there: nothing to do
  void publish(const PublishedRule& rule);
  void unpublish(const PublishedRule& rule);
  void remove();
  bool filtersSpoofing() const { return filters_spoofing_; }
  // The chain of somebody else that drops what this host forwards ("ip filter FORWARD"), as
  // Docker's does; empty: none. What is dropped there is gone whatever our rules say.
  std::string foreignDrop();

  // The text given to nftables, for tests. Without `rejects`, what is refused is dropped.
  static std::string inetTable(const FirewallRules& rules, bool rejects = true);
  static std::string bridgeTable(const FirewallRules& rules);

 private:
  bool run(const std::string& commands, std::string& error);
  std::string listing();  // both tables, without the elements of their sets
  void change(const char* verb, const std::string& elements, bool required);

  nft_ctx* context_;
  FirewallRules rules_;
  bool filters_spoofing_ = false;
  std::string applied_;  // listing() of what apply() has made
};

}  // namespace hull::engine
