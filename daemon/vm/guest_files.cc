#include "daemon/vm/guest_files.h"

#include "base/error.h"

namespace hull::engine {

std::string hostsFile(const std::string& hostname, const std::string& address,
                      const std::string& gateway, const std::vector<std::string>& extra_hosts) {
  std::string text =
      "127.0.0.1\tlocalhost\n"
      "::1\tlocalhost ip6-localhost ip6-loopback\n"
      "fe00::0\tip6-localnet\n"
      "ff00::0\tip6-mcastprefix\n"
      "ff02::1\tip6-allnodes\n"
      "ff02::2\tip6-allrouters\n";
  for (const auto& entry : extra_hosts) {
    // Of the first ':', because an IPv6 address has more of them; Docker also takes "name=address".
    const size_t separator = entry.find_first_of(":=");
    const bool bad = separator == std::string::npos || separator == 0 ||
                     separator + 1 == entry.size() ||
                     entry.find_first_of(" \t\n\r") != std::string::npos;
    if (bad) {
      throw Error(ErrorKind::kInvalidArgument,
                  "invalid extra host \"" + entry + "\": must be name:address");
    }
    std::string where = entry.substr(separator + 1);
    if (where == "host-gateway") where = gateway;
    text += where + "\t" + entry.substr(0, separator) + "\n";
  }
  text += (address.empty() ? "127.0.1.1" : address) + "\t" + hostname + "\n";
  return text;
}

std::string resolvConf(const std::string& nameserver) {
  return nameserver.empty() ? std::string() : "nameserver " + nameserver + "\n";
}

}  // namespace hull::engine
