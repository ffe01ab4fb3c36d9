#include "daemon/network/firewall.h"

#include <nftables/libnftables.h>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine {

namespace {

// "add" first, so that "delete" finds one: this is how nft replaces a table in one transaction.
std::string replaceTable(const std::string& table) {
  return "add table " + table + "\ndelete table " + table + "\n";
}

std::string element(const GuestPort& guest) {
  return "\"" + guest.interface + "\" . " + formatMac(macOf(guest.address)) + " . " +
         formatAddress(guest.address);
}

}  // namespace

Firewall::Firewall() : context_(nft_ctx_new(NFT_CTX_DEFAULT)) {
  if (context_ == nullptr) throw Error(ErrorKind::kInternal, "open nftables: out of memory");
  nft_ctx_buffer_error(context_);
  nft_ctx_buffer_output(context_);
}

Firewall::~Firewall() {
  nft_ctx_free(context_);
}

std::string Firewall::inetTable(const FirewallRules& rules) {
  const std::string bridge = "\"" + rules.bridge + "\"", subnet = formatSubnet(rules.subnet);
  std::string text = replaceTable("inet hull") + "table inet hull {\n";
  text +=
      "  chain postrouting {\n"
      "    type nat hook postrouting priority 100; policy accept;\n"
      "    ip saddr " +
      subnet + " oifname != " + bridge +
      " masquerade\n"
      "  }\n";
  // Guests reach out and each other; nothing comes in that was not asked for (published ports are
  // relayed by the engine and are not forwarded).
  text +=
      "  chain forward {\n"
      "    type filter hook forward priority 0; policy accept;\n"
      "    iifname " +
      bridge +
      " accept\n"
      "    oifname " +
      bridge +
      " ct state established,related accept\n"
      "    oifname " +
      bridge +
      " drop\n"
      "  }\n";
  if (rules.dns_port != 53) {
    const std::string gateway = formatAddress(rules.subnet.gateway());
    const std::string match = "    iifname " + bridge + " ip daddr " + gateway;
    const std::string redirect = " dport 53 redirect to :" + std::to_string(rules.dns_port) + "\n";
    text +=
        "  chain prerouting {\n"
        "    type nat hook prerouting priority -100; policy accept;\n" +
        match + " udp" + redirect + match + " tcp" + redirect + "  }\n";
  }
  return text + "}\n";
}

std::string Firewall::bridgeTable(const FirewallRules& rules) {
  std::string text = replaceTable("bridge hull") + "table bridge hull {\n";
  text += "  set guests {\n    type ifname . ether_addr . ipv4_addr\n";
  std::string elements;
  for (const auto& guest : rules.guests) {
    elements += (elements.empty() ? "" : ", ") + element(guest);
  }
  if (!elements.empty()) text += "    elements = { " + elements + " }\n";
  text +=
      "  }\n"
      "  chain prerouting {\n"
      "    type filter hook prerouting priority -300; policy accept;\n"
      "    iifname != \"hull-*\" accept\n"
      "    ether type ip iifname . ether saddr . ip saddr @guests accept\n"
      "    ether type arp iifname . ether saddr . arp saddr ip @guests"
      " iifname . arp saddr ether . arp saddr ip @guests accept\n"
      "    drop\n"
      "  }\n";
  return text + "}\n";
}

bool Firewall::run(const std::string& commands, std::string& error) {
  const int result = nft_run_cmd_from_buffer(context_, commands.c_str());
  error = nft_ctx_get_error_buffer(context_);
  return result == 0;
}

void Firewall::apply(const FirewallRules& rules) {
  std::string error;
  if (!run(inetTable(rules), error)) {
    throw Error(
        ErrorKind::kNotSupported,
        "set up address translation with nftables: " + error +
            " (the engine needs CAP_NET_ADMIN and the kernel modules nf_tables and nft_masq)");
  }
  filters_spoofing_ = run(bridgeTable(rules), error);
  if (!filters_spoofing_) {
    log::warning(
        "guests could send with each other's addresses: this kernel has no nftables for bridges: " +
        error);
  }
}

void Firewall::addGuest(const GuestPort& guest) {
  std::string error;
  if (filters_spoofing_ &&
      !run("add element bridge hull guests { " + element(guest) + " }\n", error)) {
    throw Error(ErrorKind::kInternal, "let " + guest.interface + " send: " + error);
  }
}

void Firewall::removeGuest(const GuestPort& guest) {
  std::string ignored;
  if (filters_spoofing_)
    run("delete element bridge hull guests { " + element(guest) + " }\n", ignored);
}

void Firewall::remove() {
  std::string ignored;
  run("delete table inet hull\n", ignored);
  run("delete table bridge hull\n", ignored);
}

}  // namespace hull::engine
