// The guest's network by rtnetlink: no DHCP, no waiting. The event loop's thread.
#pragma once

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

void bringUpLoopback();
// A card with its addresses, MTU and, if it has a gateway, the default route; what it had before is
// gone. Throws Error(kInvalidArgument) for text that is no address, kNotFound without such a card.
void configureNetwork(const ConfigureNetwork& config);

}  // namespace hull::guest
