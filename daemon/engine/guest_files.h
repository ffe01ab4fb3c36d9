// The files the engine writes for a container: /etc/hosts and /etc/resolv.conf, with the values
// that come from requests checked so that they cannot add lines of their own. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "daemon/engine/container_spec.h"

namespace hull::engine {

// `address` is the container's own, empty without a network; `gateway` replaces "host-gateway".
std::string containerHosts(const ContainerSpec& spec, const std::string& hostname,
                           const std::string& address, const std::string& gateway);
// `nameserver`: the engine's forwarder; empty (no network) leaves the file of the image.
std::string containerResolvConf(const ContainerSpec& spec, const std::string& nameserver);

inline constexpr const char* kHostGateway = "host-gateway";  // for an address: the host's

// "name:address" as of --add-host ("name=address" too); throws kInvalidArgument.
struct ExtraHost {
  std::string name;
  std::string address;
};
ExtraHost parseExtraHost(const std::string& text);

}  // namespace hull::engine
