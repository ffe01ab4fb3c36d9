// What a network and its endpoints shall look like before any of it is made: completing and
// checking a request, choosing addresses. Pure functions, any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "daemon/network/leases.h"
#include "daemon/network/network.h"

namespace hull::engine {

// Fills in subnet and gateways. `taken` are subnets of the host that ours may not hide; `tag` makes
// unique local IPv6 subnets this engine's. Throws kInvalidArgument, and kConflict in Docker's words
// when it overlaps one of `present` or no subnet is free.
NetworkSpec completeNetwork(NetworkSpec wanted, const std::vector<NetworkSpec>& present,
                            const std::vector<Subnet>& taken, const std::string& tag);

// Address, MAC and names for one more endpoint. Throws kInvalidArgument, kConflict.
Lease planEndpoint(const NetworkSpec& network, const std::vector<Lease>& present,
                   const std::string& container, const EndpointSpec& wanted);

// `mac`, or a random one when a card has it already: cards keep theirs when they change networks.
std::array<uint8_t, 6> freeMac(std::array<uint8_t, 6> mac, const std::vector<Lease>& present);

Attachment attachmentOf(const Lease& lease, const NetworkSpec* network);

// As names are compared: lower case, no trailing dot. Empty: no name DNS could carry (RFC 1035).
std::string dnsName(std::string_view name);

}  // namespace hull::engine
