#include "daemon/vm/guest_files.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "base/error.h"

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

std::string lineOf(const char* keyword, const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (isWord(word)) line += " " + word;
  }
  return line.empty() ? line : keyword + line + "\n";
}

}  // namespace

ExtraHost parseExtraHost(const std::string& text) {
  // The first of them, because an IPv6 address has more ':'.
  const size_t split = text.find_first_of("=:");
  const Error invalid(ErrorKind::kInvalidArgument,
                      "bad format for add-host: \"" + text + "\": must be name:address");
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

std::string hostsFile(const std::string& names, const std::string& address,
                      const std::string& gateway, const std::vector<std::string>& extra_hosts) {
  std::string text =
      "127.0.0.1\tlocalhost\n"
      "::1\tlocalhost ip6-localhost ip6-loopback\n"
      "fe00::0\tip6-localnet\n"
      "ff00::0\tip6-mcastprefix\n"
      "ff02::1\tip6-allnodes\n"
      "ff02::2\tip6-allrouters\n";
  for (const std::string& entry : extra_hosts) {
    const ExtraHost extra = parseExtraHost(entry);
    const std::string& where = extra.address == kHostGateway ? gateway : extra.address;
    if (!where.empty()) text += where + "\t" + extra.name + "\n";
  }
  return text + (address.empty() ? "127.0.1.1" : address) + "\t" + names + "\n";
}

std::string resolvConf(const Resolver& resolver) {
  std::string text;
  for (const std::string& server : resolver.servers) {
    if (!isAddress(server)) {
      throw Error(ErrorKind::kInvalidArgument, "invalid DNS server address: \"" + server + "\"");
    }
    text += "nameserver " + server + "\n";
  }
  if (text.empty()) return text;
  return text + lineOf("search", resolver.search) + lineOf("options", resolver.options);
}

}  // namespace hull::engine
