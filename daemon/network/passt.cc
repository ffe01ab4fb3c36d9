#include "daemon/network/passt.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace hull::engine {

namespace {

constexpr const char* kUsualPlace = "/usr/bin/passt";

std::string forwardOf(const PortMapping& port) {
  return port.host_address + "/" + std::to_string(port.host_port) + ":" +
         std::to_string(port.guest_port);
}

}  // namespace

std::vector<std::string> passtCommand(const PasstOptions& options) {
  // Addresses are given, never asked for: the guest is configured by the engine.
  std::vector<std::string> words{options.program, "--foreground",
                                 "--quiet",       "--ipv4-only",
                                 "--address",     formatAddress(options.guest),
                                 "--netmask",     std::to_string(options.subnet.prefix_length),
                                 "--gateway",     formatAddress(options.gateway),
                                 "--mac-addr",    formatMac(macOf(options.gateway)),
                                 "--mtu",         std::to_string(kPasstMtu),
                                 "--dns-forward", formatAddress(options.gateway),
                                 "--no-dhcp",     "--no-dhcpv6",
                                 "--no-ndp",      "--no-ra"};
  if (!options.reaches_host) words.push_back("--no-map-gw");
  for (const auto& [protocol, option] : {std::pair{"tcp", "--tcp-ports"}, {"udp", "--udp-ports"}}) {
    bool any = false;
    for (const PortMapping& port : options.ports) {
      if (port.protocol != protocol) continue;
      words.insert(words.end(), {option, forwardOf(port)});
      any = true;
    }
    if (!any) words.insert(words.end(), {option, "none"});
  }
  return words;
}

std::string findPasst() {
  if (access(kUsualPlace, X_OK) == 0) return kUsualPlace;
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path ? path : ""; !rest.empty();) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    const std::string program = std::string(rest.substr(0, colon)) + "/passt";
    if (program.front() == '/' && access(program.c_str(), X_OK) == 0) return program;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return {};
}

}  // namespace hull::engine
