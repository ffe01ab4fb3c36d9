// A place in the network as a network card of a virtual machine. Pure; takes the place's tap.
#pragma once

#include <utility>

#include "daemon/network/network.h"
#include "daemon/vm/vm.h"

namespace hull::engine {

inline VmNetwork networkCard(Attachment& place) {
  VmNetwork card{std::move(place.tap), place.mac, place.mtu, place.passt, {}};
  for (const Subnet& subnet : place.blocked) {
    card.blocked.push_back({subnet.network, subnet.prefix_length});
  }
  return card;
}

}  // namespace hull::engine
