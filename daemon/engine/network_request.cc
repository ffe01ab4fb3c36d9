// What clients ask of networks and endpoints, as typed values.
#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/networks.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr size_t kMaxLabels = 1024;
constexpr size_t kMaxNameBytes = 255;
constexpr const char* kMtuOption = "com.docker.network.driver.mtu";
constexpr const char* kOptionPrefix = "com.docker.network.bridge.";

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

// As containers' names, but one character is enough.
std::string checkedNetworkName(const std::string& name) {
  if (name.empty()) invalid("network name cannot be empty");
  const auto is_plain = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const bool fits =
      is_plain(static_cast<unsigned char>(name.front())) &&
      std::all_of(name.begin(), name.end(), [&](char c) {
        return is_plain(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
      });
  if (!fits || name.size() > kMaxNameBytes) {
    invalid("Invalid network name (" + name.substr(0, kMaxNameBytes) +
            "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
  }
  return name;
}

bool booleanOption(const std::string& name, const std::string& value) {
  if (value == "true" || value == "1") return true;
  if (value == "false" || value == "0") return false;
  invalid("invalid value for " + name + ": \"" + value + "\" is neither true nor false");
}

void readOption(const std::string& name, const std::string& value, NetworkSpec& spec) {
  const std::string prefix = kOptionPrefix;
  if (name == kMtuOption) {
    const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), spec.mtu);
    if (failed != std::errc() || end != value.data() + value.size()) {
      invalid("invalid MTU \"" + value + "\"");
    }
  } else if (name == prefix + "enable_icc") {
    spec.isolated = !booleanOption(name, value);
  } else if (name == prefix + "enable_ip_masquerade") {
    spec.masquerade = booleanOption(name, value);
  } else if (name == prefix + "name") {
    spec.bridge = value;
  } else if (name == "com.docker.network.enable_ipv6") {
    spec.ipv6 = booleanOption(name, value);
  }
  // Others are kept and shown, as Docker does with what a driver does not know.
}

void readPool(const Json& pool, NetworkSpec& spec) {
  const std::string subnet = fields::text(pool, "Subnet"), gateway = fields::text(pool, "Gateway"),
                    range = fields::text(pool, "IPRange");
  if (!fields::keys(pool, "AuxiliaryAddresses").empty()) {
    throw Error(ErrorKind::kNotSupported,
                "auxiliary addresses are not supported: keep the range small with --ip-range");
  }
  if (subnet.find(':') != std::string::npos || gateway.find(':') != std::string::npos) {
    if (!range.empty()) {
      throw Error(ErrorKind::kNotSupported, "ranges of IPv6 addresses are not supported");
    }
    if (spec.subnet6) invalid("a network has one IPv6 subnet: " + subnet + " is one too many");
    spec.subnet6 = parseSubnet6(subnet);
    if (!spec.subnet6) invalid("invalid subnet " + subnet + ": not like fd00:1::/64");
    if (!gateway.empty()) {
      spec.gateway6 = parseAddress6(gateway);
      if (!spec.gateway6) invalid("invalid gateway address " + gateway);
    }
    spec.ipv6 = true;
    return;
  }
  if (subnet.empty()) {
    if (!gateway.empty() || !range.empty()) {
      invalid("invalid network config: a gateway or range needs a subnet (--subnet)");
    }
    return;
  }
  if (spec.subnet) invalid("a network has one IPv4 subnet: " + subnet + " is one too many");
  spec.subnet = parseSubnet(subnet);
  if (!spec.subnet) {
    invalid("invalid subnet " + subnet +
            ": not like 172.28.0.0/16, with host bits of zero and 8 to 29 bits of network");
  }
  if (!gateway.empty()) {
    spec.gateway = parseAddress(gateway).value_or(0);
    if (spec.gateway == 0) invalid("invalid gateway address " + gateway);
  }
  if (!range.empty()) {
    spec.range = parseSubnet(range);
    if (!spec.range) invalid("invalid range " + range);
  }
}

}  // namespace

NetworkRecord parseNetworkRequest(std::string_view body) {
  const Json request = fields::parseObject(body, "the network's configuration");
  NetworkRecord record;
  record.name = checkedNetworkName(fields::text(request, "Name"));
  if (record.name == "host" || record.name == "default" || record.name == "container") {
    throw Error(ErrorKind::kForbidden,
                "operation is not permitted on predefined " + record.name + " network");
  }
  const std::string driver = fields::text(request, "Driver");
  if (!driver.empty() && driver != "default" && driver != "bridge") {
    throw Error(ErrorKind::kNotSupported,
                "network driver \"" + driver + "\" is not supported: bridge is");
  }
  if (fields::boolean(request, "Ingress") || fields::boolean(request, "ConfigOnly") ||
      fields::text(request, "Scope") == "swarm") {
    throw Error(ErrorKind::kNotSupported, "networks of a swarm are not supported");
  }
  record.spec.name = record.name;
  record.spec.internal = fields::boolean(request, "Internal");
  record.spec.ipv6 = fields::boolean(request, "EnableIPv6");
  record.attachable = fields::boolean(request, "Attachable");
  record.labels = fields::textMap(request, "Labels");
  if (record.labels.size() > kMaxLabels) invalid("too many labels");
  record.options = fields::textMap(request, "Options");
  for (const auto& [name, value] : record.options) readOption(name, value, record.spec);
  if (const Json* ipam = fields::find(request, "IPAM")) {
    const std::string ipam_driver = fields::text(*ipam, "Driver");
    if (!ipam_driver.empty() && ipam_driver != "default") {
      throw Error(ErrorKind::kNotSupported, "IPAM driver \"" + ipam_driver + "\" is not supported");
    }
    if (const Json* pools = fields::find(*ipam, "Config")) {
      if (!pools->is_array()) fields::wrongType("IPAM.Config", "a list");
      for (const Json& pool : *pools) readPool(pool, record.spec);
    }
  }
  return record;
}

Endpoint parseEndpoint(const std::string& network, std::string_view config) {
  const Json object = fields::parseObject(config, "the endpoint's configuration");
  Endpoint endpoint;
  endpoint.network = network;
  endpoint.aliases = fields::texts(object, "Aliases");
  endpoint.wanted_mac = fields::text(object, "MacAddress");
  if (const Json* ipam = fields::find(object, "IPAMConfig")) {
    endpoint.wanted_address = fields::text(*ipam, "IPv4Address");
    endpoint.wanted_address6 = fields::text(*ipam, "IPv6Address");
  }
  if (network == kDefaultNetwork && !endpoint.wanted_address.empty()) {
    invalid("user specified IP address is supported on user defined networks only");
  }
  if (!fields::texts(object, "Links").empty()) {
    throw Error(ErrorKind::kNotSupported, "links are not supported: use network aliases");
  }
  return endpoint;
}

}  // namespace hull::engine
