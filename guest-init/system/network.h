// The guest's network by rtnetlink: no DHCP, no waiting. The event loop's thread.
#pragma once

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

void bringUpLoopback();
// eth0 with the address, the link's MTU and the default route; throws Error(kInvalidArgument) for
// text that is no IPv4 address.
void configureNetwork(const ConfigureNetwork& config);

}  // namespace hull::guest
