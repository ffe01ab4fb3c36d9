// The small files a container gets from the engine, as Docker writes them. Values of requests are
// checked, so that none can add lines of its own. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hull::engine {

// What Docker gives a container that asks for nothing else (capabilities(7), bit numbers): chown,
// dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
// sys_chroot, mknod, audit_write, setfcap.
inline constexpr uint64_t kDefaultCapabilities = 0xa80425fb;

inline constexpr const char* kHostGateway = "host-gateway";  // for an address: the host's

// "name:address" as of --add-host ("name=address" and "name:[address]" too); throws
// kInvalidArgument naming what is wrong.
struct ExtraHost {
  std::string name;
  std::string address;  // IPv4, IPv6 or kHostGateway
};
ExtraHost parseExtraHost(const std::string& text);

// /etc/hosts (hosts(5)). `names` of the container itself, the first is canonical; `address` empty:
// no network; `gateway` stands for kHostGateway, entries with it are left out when it is empty.
// Throws like parseExtraHost.
std::string hostsFile(const std::string& names, const std::string& address,
                      const std::string& gateway, const std::vector<std::string>& extra_hosts);

// /etc/resolv.conf (resolv.conf(5)), empty without a server: the image's file stays. Throws
// kInvalidArgument for a server that is no address; words with blanks in them are left out.
struct Resolver {
  std::vector<std::string> servers = {};
  std::vector<std::string> search = {};
  std::vector<std::string> options = {};
};
std::string resolvConf(const Resolver& resolver);

}  // namespace hull::engine
