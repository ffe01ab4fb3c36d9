// What a container uses (docker stats), read from its cgroup and from the guest's kernel. Parsing
// is pure; the event loop's thread.
#pragma once

#include <string>
#include <string_view>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

inline constexpr size_t kMaxUsageFileBytes = 256 * 1024;

Usage readUsage(const std::string& cgroup);

// cgroup-v2.rst: "name value" lines; what is none is left out.
std::vector<Counter> parseCounters(std::string_view text);
// io.stat: "253:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
std::vector<BlockUsage> parseBlockUsage(std::string_view text);
// proc(5), /proc/net/dev; loopback is left out.
std::vector<NetworkUsage> parseNetworkUsage(std::string_view text);

}  // namespace hull::guest
