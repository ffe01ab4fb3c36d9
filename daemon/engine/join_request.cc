// What a request that joins another container's network may not ask for.
#include "base/error.h"
#include "daemon/engine/container_spec.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

bool notEmpty(const Json& object, const char* key) {
  const Json* value = fields::find(object, key);
  return value && !value->empty();
}

}  // namespace

// What belongs to the container that is joined (moby: runconfig.validateNetContainerMode), looked
// for in the request alone: an image may expose ports.
void checkJoining(std::string_view create_body, const ContainerDocuments& documents) {
  const Json host = fields::parseObject(documents.host_config, "the host configuration");
  const std::string mode = fields::text(host, "NetworkMode");
  if (mode != "container" && !mode.starts_with(kJoinPrefix)) return;
  if (mode.size() <= kJoinPrefix.size()) {
    invalid("invalid network mode: invalid container format container:<name|id>");
  }
  const Json body = fields::parseObject(create_body, "the container's configuration");
  const Json endpoints = fields::parseObject(documents.endpoints, "the endpoints");
  const auto conflict = [](bool there, const char* what) {
    if (there) invalid(std::string("conflicting options: ") + what);
  };
  conflict(!fields::text(body, "Hostname").empty(), "hostname and the network mode");
  conflict(notEmpty(host, "Links"),
           "container type network can't be used with links. This would result in undefined "
           "behavior");
  conflict(notEmpty(host, "Dns"), "dns and the network mode");
  conflict(notEmpty(host, "ExtraHosts"), "custom host-to-IP mapping and the network mode");
  conflict(!fields::text(body, "MacAddress").empty(), "mac-address and the network mode");
  conflict(notEmpty(host, "PortBindings") || fields::boolean(host, "PublishAllPorts"),
           "port publishing and the container type network mode");
  conflict(notEmpty(body, "ExposedPorts"), "port exposing and the container type network mode");
  for (const auto& [name, config] : endpoints.items()) {
    if (!config.is_object()) continue;
    if (notEmpty(config, "Aliases")) {
      invalid("network-scoped alias is supported only for containers in user defined networks");
    }
    const Json* ipam = fields::find(config, "IPAMConfig");
    if (ipam && (!fields::text(*ipam, "IPv4Address").empty() ||
                 !fields::text(*ipam, "IPv6Address").empty())) {
      invalid("user specified IP address is supported on user defined networks only");
    }
    conflict(!fields::text(config, "MacAddress").empty(), "mac-address and the network mode");
  }
}

void setJoined(ContainerDocuments& documents, const std::string& id) {
  Json host = fields::parseObject(documents.host_config, "the host configuration");
  host["NetworkMode"] = std::string(kJoinPrefix) + id;
  documents.host_config = fields::dump(host);
}

}  // namespace hull::engine
