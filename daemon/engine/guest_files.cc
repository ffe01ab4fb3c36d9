#include "daemon/engine/guest_files.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "daemon/vm/guest_files.h"

namespace hull::engine {

namespace {

bool isAddress(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> parsed{};
  return inet_pton(AF_INET, text.c_str(), parsed.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), parsed.data()) == 1;
}

bool isWord(const std::string& text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c != 127; });
}

}  // namespace

ExtraHost parseExtraHost(const std::string& text) {
  const size_t split = text.find_first_of("=:");
  const Error invalid(ErrorKind::kInvalidArgument, "bad format for add-host: \"" + text + "\"");
  if (split == std::string::npos) throw invalid;
  ExtraHost host{text.substr(0, split), text.substr(split + 1)};
  if (host.address.size() > 2 && host.address.front() == '[' && host.address.back() == ']') {
    host.address = host.address.substr(1, host.address.size() - 2);
  }
  if (!isWord(host.name)) throw invalid;
  if (host.address != kHostGateway && !isAddress(host.address)) {
    throw Error(ErrorKind::kInvalidArgument,
                "invalid IP address in add-host: \"" + host.address + "\"");
  }
  return host;
}

std::string containerHosts(const ContainerSpec& spec, const std::string& hostname,
                           const std::string& address, const std::string& gateway) {
  std::vector<std::string> extra_hosts;
  for (const std::string& item : spec.extra_hosts) {
    const ExtraHost extra = parseExtraHost(item);
    const std::string target = extra.address == kHostGateway ? gateway : extra.address;
    if (!target.empty()) extra_hosts.push_back(extra.name + ":" + target);
  }
  const std::string names =
      spec.domainname.empty() ? hostname : hostname + "." + spec.domainname + " " + hostname;
  return hostsFile(names, address, gateway, extra_hosts);
}

std::string containerResolvConf(const ContainerSpec& spec, const std::string& nameserver) {
  std::string text;
  for (const std::string& server : spec.dns) {
    if (!isAddress(server)) {
      throw Error(ErrorKind::kInvalidArgument, "invalid DNS server address: \"" + server + "\"");
    }
    text += "nameserver " + server + "\n";
  }
  if (spec.dns.empty() && !nameserver.empty()) text += "nameserver " + nameserver + "\n";
  if (text.empty()) return text;
  const auto words = [&](const char* keyword, const std::vector<std::string>& list) {
    std::string line;
    for (const std::string& word : list) {
      if (isWord(word)) line += " " + word;
    }
    if (!line.empty()) text += keyword + line + "\n";
  };
  words("search", spec.dns_search);
  words("options", spec.dns_options);
  return text;
}

}  // namespace hull::engine
