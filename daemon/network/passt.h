// How passt is called: the process that is the network of one virtual machine of an engine without
// root. It turns the guest's packets into connections of the user's own sockets, and connections to
// published ports into packets. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/network/address.h"
#include "daemon/network/network.h"

namespace hull::engine {

inline constexpr uint16_t kPasstMtu = 65520;  // the greatest passt takes: no offloads there

struct PasstOptions {
  std::string program;
  Subnet subnet;
  uint32_t guest = 0;              // its address
  uint32_t gateway = 0;            // answers ARP, and DNS with what the host's resolver says
  bool reaches_host = false;       // the gateway's address is the host's loopback address
  std::vector<PortMapping> ports;  // with their real host ports
};

// The command line without the socket's descriptor, which whoever starts it adds.
std::vector<std::string> passtCommand(const PasstOptions& options);

// Debian's place, then PATH; empty: there is none.
std::string findPasst();

}  // namespace hull::engine
