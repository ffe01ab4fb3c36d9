#include "daemon/network/firewall.h"

#include <fmt/format.h>
#include <nftables/libnftables.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine {

namespace {

constexpr uint16_t kDnsPort = 53;

// "add" first, so that "delete" finds one: this is how nft replaces a table in one transaction.
std::string replaceTable(const std::string& table) {
  return fmt::format("add table {0}\ndelete table {0}\n", table);
}

using Elements = std::vector<std::string>;

std::string join(const Elements& elements) {
  return fmt::format("{}", fmt::join(elements, ", "));
}

std::string setText(const std::string& name, const std::string& type, const Elements& elements,
                    const char* kind = "set", bool interval = false) {
  std::string text = fmt::format("  {} {} {{ type {};", kind, name, type);
  if (interval) text += " flags interval; auto-merge;";
  if (!elements.empty()) text += fmt::format(" elements = {{ {} }};", join(elements));
  return text + " }\n";
}

std::string quoted(const std::string& name) {
  return "\"" + name + "\"";
}

// The elements a guest has in the sets of the tables, as "<family> <table> <set> { … }".
struct SetElement {
  const char* family;
  const char* set;
  std::string element;
};

std::string hexOf(const Address6& address) {
  std::string text = "0x";
  for (const uint8_t byte : address) text += fmt::format("{:02x}", byte);
  return text;
}

std::vector<SetElement> elementsOf(const GuestPort& guest) {
  const std::string port = quoted(guest.interface);
  const std::string sender = port + " . " + formatMac(guest.mac) + " . ";
  std::vector<SetElement> found{{"bridge", "guests", sender + formatAddress(guest.address)}};
  if (guest.address6) {
    for (const Address6& address : {*guest.address6, linkLocalOf(guest.mac)}) {
      found.push_back({"bridge", "guests6", sender + formatAddress6(address)});
      found.push_back({"bridge", "targets6", port + " . " + hexOf(address)});
    }
  }
  if (guest.isolated) found.push_back({"bridge", "isolated", port});
  if (guest.reaches_host) found.push_back({"inet", "trusted", formatAddress(guest.address)});
  return found;
}

SetElement elementOf(const PublishedRule& rule) {
  const std::string target = fmt::format("{} . {}", formatAddress(rule.guest), rule.guest_port);
  if (rule.host_address == 0) {
    return {"inet", "published",
            fmt::format("{} . {} : {}", rule.protocol, rule.host_port, target)};
  }
  return {"inet", "published_on",
          fmt::format("{} . {} . {} : {}", formatAddress(rule.host_address), rule.protocol,
                      rule.host_port, target)};
}

// What guests reach on the host itself: the relays of published ports.
std::string relayElement(const PublishedRule& rule) {
  return fmt::format("{} . {}", rule.protocol, rule.host_port);
}

Elements collect(const FirewallRules& rules, const std::string& set) {
  Elements found;
  for (const GuestPort& guest : rules.guests) {
    for (auto& each : elementsOf(guest)) {
      if (each.set == set) found.push_back(std::move(each.element));
    }
  }
  for (const PublishedRule& rule : rules.published) {
    auto element = elementOf(rule);
    if (element.set == set) found.push_back(std::move(element.element));
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::string sets(const FirewallRules& rules) {
  Elements bridges, same, internal, sources, relayed = rules.open_host_ports;
  for (const NetworkRules& network : rules.networks) {
    const std::string bridge = quoted(network.bridge);
    bridges.push_back(bridge);
    if (!network.isolated) same.push_back(bridge + " . " + bridge);
    if (network.internal) internal.push_back(bridge);
    if (network.masquerade && !network.internal) sources.push_back(formatSubnet(network.subnet));
  }
  for (const PublishedRule& rule : rules.published) relayed.push_back(relayElement(rule));
  std::sort(relayed.begin(), relayed.end());
  relayed.erase(std::unique(relayed.begin(), relayed.end()), relayed.end());
  const char* port = "inet_proto . inet_service";
  const char* target = "inet_proto . inet_service : ipv4_addr . inet_service";
  return setText("bridges", "ifname", bridges) + setText("same", "ifname . ifname", same) +
         setText("internal", "ifname", internal) +
         setText("sources", "ipv4_addr", sources, "set", true) +
         setText("blocked", "ipv4_addr", rules.blocked, "set", true) +
         setText("trusted", "ipv4_addr", collect(rules, "trusted")) +
         setText("relayed", port, relayed) +
         setText("published", target, collect(rules, "published"), "map") +
         setText("published_on", std::string("ipv4_addr . ") + target,
                 collect(rules, "published_on"), "map");
}

std::string dnsRedirects(const FirewallRules& rules) {
  std::string text;
  for (const NetworkRules& network : rules.networks) {
    if (network.dns_port == kDnsPort) continue;
    text += fmt::format(
        "    iifname \"{}\" ip daddr {} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{}\n",
        network.bridge, formatAddress(network.gateway), network.dns_port);
  }
  return text;
}

// Where queries arrive that were redirected to another port.
std::string dnsPorts(const FirewallRules& rules) {
  std::vector<uint16_t> ports{kDnsPort};
  for (const NetworkRules& network : rules.networks) ports.push_back(network.dns_port);
  std::sort(ports.begin(), ports.end());
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());
  return fmt::format("{}", fmt::join(ports, ", "));
}

constexpr const char* kInetChains = R"(
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
{redirects}    iifname @bridges accept
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_on
    fib daddr type local dnat ip to meta l4proto . th dport map @published
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    iifname @bridges ip daddr @blocked {refuse}
    iifname . oifname @same accept
    oifname @bridges ct state established,related accept
    iifname @bridges ct state established,related accept
    iifname @bridges oifname @bridges {refuse}
    iifname @internal {refuse}
    iifname @bridges accept
    oifname @internal drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname != @bridges accept
    ct state established,related accept
    meta l4proto {{ tcp, udp }} th dport {{ {dns} }} accept
    ip protocol icmp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report, echo-request }} accept
    meta l4proto . th dport @relayed accept
    ip saddr @trusted accept
    {refuse}
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr @sources oifname != @bridges masquerade
    ip6 saddr fc00::/7 iifname @bridges oifname != @bridges masquerade
  }}
}}
)";

constexpr const char* kBridgeChains = R"(
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{taps}*" accept
    ether type ip iifname . ether saddr . ip saddr @guests udp sport 67 drop
    ether type ip iifname . ether saddr . ip saddr @guests accept
    ether type arp iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
    ether type ip6 jump ipv6
    drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname @isolated oifname @isolated drop
  }}
  chain ipv6 {{
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    udp sport 547 drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop
    iifname . ether saddr . ip6 saddr @guests6 accept
    ip6 saddr :: icmpv6 type {{ nd-neighbor-solicit, mld2-listener-report }} accept
  }}
}}
)";

}  // namespace

Firewall::Firewall() : context_(nft_ctx_new(NFT_CTX_DEFAULT)) {
  if (context_ == nullptr) throw Error(ErrorKind::kInternal, "open nftables: out of memory");
  nft_ctx_buffer_error(context_);
  nft_ctx_buffer_output(context_);
}

Firewall::~Firewall() {
  nft_ctx_free(context_);
}

std::string Firewall::inetTable(const FirewallRules& rules, bool rejects) {
  const std::string name = "inet " + rules.table;
  return replaceTable(name) + "table " + name + " {\n" + sets(rules) +
         fmt::format(kInetChains, fmt::arg("redirects", dnsRedirects(rules)),
                     fmt::arg("dns", dnsPorts(rules)),
                     fmt::arg("refuse", rejects ? "reject with icmpx admin-prohibited" : "drop"));
}

std::string Firewall::bridgeTable(const FirewallRules& rules) {
  const std::string name = "bridge " + rules.table;
  const Elements targets = collect(rules, "targets6");
  std::string set6 = "  set targets6 { typeof iifname . @th,64,128;";
  if (!targets.empty()) set6 += " elements = { " + join(targets) + " };";
  return replaceTable(name) + "table " + name + " {\n" +
         setText("guests", "ifname . ether_addr . ipv4_addr", collect(rules, "guests")) +
         setText("isolated", "ifname", collect(rules, "isolated")) +
         setText("guests6", "ifname . ether_addr . ipv6_addr", collect(rules, "guests6")) + set6 +
         " }\n" + fmt::format(kBridgeChains, fmt::arg("taps", rules.tap_prefix));
}

bool Firewall::run(const std::string& commands, std::string& error) {
  const int result = nft_run_cmd_from_buffer(context_, commands.c_str());
  error = nft_ctx_get_error_buffer(context_);
  return result == 0;
}

void Firewall::apply() {
  std::string error, ignored;
  if (!run(inetTable(rules_), error) && !run(inetTable(rules_, false), ignored)) {
    throw Error(
        ErrorKind::kNotSupported,
        "set up address translation with nftables: " + error +
            " (the engine needs CAP_NET_ADMIN and the kernel modules nf_tables and nft_masq)");
  }
  filters_spoofing_ = run(bridgeTable(rules_), error);
  if (!filters_spoofing_) {
    log::warning(
        "guests could send with each other's addresses: this kernel has no nftables for bridges: " +
        error);
  }
  applied_ = listing();
}

std::string Firewall::listing() {
  std::string text, ignored;
  const unsigned flags = nft_ctx_output_get_flags(context_);
  nft_ctx_output_set_flags(context_, flags | NFT_CTX_OUTPUT_TERSE);
  for (const char* family : {"inet ", "bridge "}) {
    if (run("list table " + (family + rules_.table) + "\n", ignored)) {
      text += nft_ctx_get_output_buffer(context_);
    }
  }
  nft_ctx_output_set_flags(context_, flags);
  return text;
}

bool Firewall::restoreIfChanged() {
  if (applied_.empty() || listing() == applied_) return false;
  apply();
  return true;
}

void Firewall::change(const char* verb, const std::string& elements, bool required) {
  if (elements.empty()) return;
  std::string error;
  if (run(elements, error) || !required) return;
  // Somebody has taken the table away: all of it again.
  log::warning(std::string("packet rules are made again: ") + verb + ": " + error);
  apply();
}

void Firewall::addGuest(const GuestPort& guest) {
  rules_.guests.push_back(guest);
  std::string commands;
  for (const auto& each : elementsOf(guest)) {
    if (std::string(each.family) == "bridge" && !filters_spoofing_) continue;
    commands += fmt::format("add element {} {} {} {{ {} }}\n", each.family, rules_.table, each.set,
                            each.element);
  }
  change("let a guest send", commands, true);
}

void Firewall::removeGuest(const std::string& interface) {
  const auto found =
      std::find_if(rules_.guests.begin(), rules_.guests.end(),
                   [&](const GuestPort& guest) { return guest.interface == interface; });
  if (found == rules_.guests.end()) return;
  std::string commands;
  for (const auto& each : elementsOf(*found)) {
    if (std::string(each.family) == "bridge" && !filters_spoofing_) continue;
    commands += fmt::format("delete element {} {} {} {{ {} }}\n", each.family, rules_.table,
                            each.set, each.element);
  }
  rules_.guests.erase(found);
  change("forget a guest", commands, false);
}

void Firewall::publish(const PublishedRule& rule) {
  rules_.published.push_back(rule);
  const auto element = elementOf(rule);
  change("publish a port",
         fmt::format("add element inet {0} {1} {{ {2} }}\nadd element inet {0} relayed {{ {3} }}\n",
                     rules_.table, element.set, element.element, relayElement(rule)),
         true);
}

void Firewall::unpublish(const PublishedRule& rule) {
  const auto found = std::find(rules_.published.begin(), rules_.published.end(), rule);
  if (found == rules_.published.end()) return;
  rules_.published.erase(found);
  const auto element = elementOf(rule);
  std::string commands = fmt::format("delete element inet {} {} {{ {} }}\n", rules_.table,
                                     element.set, element.element);
  const bool still = std::any_of(
      rules_.published.begin(), rules_.published.end(),
      [&](const PublishedRule& other) { return relayElement(other) == relayElement(rule); });
  if (!still) {
    commands +=
        fmt::format("delete element inet {} relayed {{ {} }}\n", rules_.table, relayElement(rule));
  }
  change("unpublish a port", commands, false);
}

std::string Firewall::foreignDrop() {
  std::string error;
  if (!run("list chains\n", error)) return {};
  std::istringstream lines(nft_ctx_get_output_buffer(context_));
  std::string table, chain;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word, family, name;
    words >> word >> family >> name;
    if (word == "table") {
      table = family + " " + name;
    } else if (word == "chain") {
      chain = family;
    } else if (line.find("hook forward") != std::string::npos &&
               line.find("policy drop") != std::string::npos &&
               table.find(" hull_") == std::string::npos) {
      return table + " " + chain;
    }
  }
  return {};
}

void Firewall::remove() {
  std::string ignored;
  applied_.clear();
  run("delete table inet " + rules_.table + "\n", ignored);
  run("delete table bridge " + rules_.table + "\n", ignored);
}

}  // namespace hull::engine
