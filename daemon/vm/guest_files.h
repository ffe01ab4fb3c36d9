// The small files a container gets from the engine, as Docker writes them. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hull::engine {

// What Docker gives a container that asks for nothing else (capabilities(7), bit numbers): chown,
// dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
// sys_chroot, mknod, audit_write, setfcap.
inline constexpr uint64_t kDefaultCapabilities = 0xa80425fb;

// "name:address" entries; the address "host-gateway" stands for `gateway`. An empty `address`: no
// network. Throws kInvalidArgument naming a bad entry.
std::string hostsFile(const std::string& hostname, const std::string& address,
                      const std::string& gateway, const std::vector<std::string>& extra_hosts);
std::string resolvConf(const std::string& nameserver);

}  // namespace hull::engine
