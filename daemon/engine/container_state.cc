#include "daemon/engine/container_state.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::array<std::pair<Status, std::string_view>, 7> kNames{{
    {Status::kCreated, "created"},
    {Status::kRunning, "running"},
    {Status::kPaused, "paused"},
    {Status::kRestarting, "restarting"},
    {Status::kRemoving, "removing"},
    {Status::kExited, "exited"},
    {Status::kDead, "dead"},
}};

Json toJson(const Endpoint& endpoint) {
  return {{"network", endpoint.network},
          {"aliases", endpoint.aliases},
          {"wanted_address", endpoint.wanted_address},
          {"wanted_address6", endpoint.wanted_address6},
          {"wanted_mac", endpoint.wanted_mac},
          {"id", endpoint.id},
          {"address", endpoint.address},
          {"prefix_length", endpoint.prefix_length},
          {"gateway", endpoint.gateway},
          {"address6", endpoint.address6},
          {"prefix_length6", endpoint.prefix_length6},
          {"gateway6", endpoint.gateway6},
          {"mac", endpoint.mac}};
}

Endpoint endpointOf(const Json& object) {
  Endpoint endpoint;
  endpoint.network = fields::text(object, "network");
  endpoint.aliases = fields::texts(object, "aliases");
  endpoint.wanted_address = fields::text(object, "wanted_address");
  endpoint.wanted_address6 = fields::text(object, "wanted_address6");
  endpoint.wanted_mac = fields::text(object, "wanted_mac");
  endpoint.id = fields::text(object, "id");
  endpoint.address = fields::text(object, "address");
  endpoint.prefix_length = static_cast<uint8_t>(fields::integer(object, "prefix_length"));
  endpoint.gateway = fields::text(object, "gateway");
  endpoint.address6 = fields::text(object, "address6");
  endpoint.prefix_length6 = static_cast<uint8_t>(fields::integer(object, "prefix_length6"));
  endpoint.gateway6 = fields::text(object, "gateway6");
  endpoint.mac = fields::text(object, "mac");
  return endpoint;
}

constexpr std::array<std::pair<HealthStatus, std::string_view>, 4> kHealthNames{{
    {HealthStatus::kNone, "none"},
    {HealthStatus::kStarting, "starting"},
    {HealthStatus::kHealthy, "healthy"},
    {HealthStatus::kUnhealthy, "unhealthy"},
}};

HealthStatus parseHealth(std::string_view text) {
  for (const auto& [value, name] : kHealthNames) {
    if (name == text) return value;
  }
  return HealthStatus::kNone;
}

[[noreturn]] void conflict(const std::string& message) {
  throw Error(ErrorKind::kConflict, message);
}

}  // namespace

std::string_view toString(Status status) {
  for (const auto& [value, name] : kNames) {
    if (value == status) return name;
  }
  return "dead";
}

std::string_view toString(HealthStatus status) {
  for (const auto& [value, name] : kHealthNames) {
    if (value == status) return name;
  }
  return "none";
}

Status parseStatus(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  throw Error(ErrorKind::kInvalidArgument,
              "invalid filter 'status=" + std::string(text) + "': no such state");
}

std::string toJson(const ContainerState& state) {
  Json ports = Json::array();
  for (const PortMapping& port : state.ports) {
    ports.push_back({{"address", port.host_address},
                     {"host", port.host_port},
                     {"guest", port.guest_port},
                     {"protocol", port.protocol}});
  }
  Json endpoints = Json::array();
  for (const Endpoint& endpoint : state.endpoints) endpoints.push_back(toJson(endpoint));
  return fields::dump({{"status", toString(state.status)},
                       {"exit_code", state.exit_code},
                       {"out_of_memory", state.out_of_memory},
                       {"error", state.error},
                       {"started_ns", state.started_ns},
                       {"finished_ns", state.finished_ns},
                       {"restarts", state.restarts},
                       {"quick_ends", state.quick_ends},
                       {"health", toString(state.health.status)},
                       {"failing_streak", state.health.failing_streak},
                       {"stopped_by_user", state.stopped_by_user},
                       {"pid", state.pid},
                       {"vm_memory_mib", state.vm_memory_mib},
                       {"vm_vcpus", state.vm_vcpus},
                       {"ports", ports},
                       {"endpoints", endpoints}});
}

ContainerState parseState(std::string_view json) {
  const Json object = fields::parseObject(json, "a container's recorded state");
  ContainerState state;
  state.status = parseStatus(fields::text(object, "status"));
  state.exit_code = static_cast<int>(fields::integer(object, "exit_code"));
  state.out_of_memory = fields::boolean(object, "out_of_memory");
  state.error = fields::text(object, "error");
  state.started_ns = fields::integer(object, "started_ns");
  state.finished_ns = fields::integer(object, "finished_ns");
  state.restarts = fields::integer(object, "restarts");
  state.quick_ends = fields::integer(object, "quick_ends");
  state.health.status = parseHealth(fields::text(object, "health"));
  state.health.failing_streak = fields::integer(object, "failing_streak");
  state.stopped_by_user = fields::boolean(object, "stopped_by_user");
  state.pid = fields::integer(object, "pid");
  state.vm_memory_mib = static_cast<uint64_t>(fields::integer(object, "vm_memory_mib"));
  state.vm_vcpus = static_cast<uint32_t>(fields::integer(object, "vm_vcpus"));
  if (const Json* ports = fields::find(object, "ports")) {
    for (const Json& port : *ports) {
      state.ports.push_back(
          {fields::text(port, "address"), static_cast<uint16_t>(fields::integer(port, "host")),
           static_cast<uint16_t>(fields::integer(port, "guest")), fields::text(port, "protocol")});
      if (state.ports.back().protocol.empty()) state.ports.back().protocol = "tcp";
    }
  }
  if (const Json* endpoints = fields::find(object, "endpoints")) {
    for (const Json& endpoint : *endpoints) state.endpoints.push_back(endpointOf(endpoint));
  }
  return state;
}

void checkStep(Step step, Status status, const std::string& id) {
  const bool running = status == Status::kRunning || status == Status::kPaused;
  const std::string container = "container " + id;
  switch (step) {
    case Step::kStart:
      if (status == Status::kPaused)
        conflict("cannot start a paused container, try unpause instead");
      if (status == Status::kRemoving || status == Status::kDead) {
        conflict("container is marked for removal and cannot be started");
      }
      return;
    case Step::kPause:
      if (status == Status::kPaused) conflict("Container " + id + " is already paused");
      if (!running) conflict("Container " + id + " is not running");
      return;
    case Step::kUnpause:
      if (status != Status::kPaused) conflict("Container " + id + " is not paused");
      return;
    case Step::kKill:
      if (!running) conflict("cannot kill container: " + id + ": " + container + " is not running");
      return;
    case Step::kExec:
      if (status == Status::kPaused) {
        conflict("Container " + id + " is paused, unpause the container before exec");
      }
      if (!running) conflict(container + " is not running");
      return;
    case Step::kRemove:
      if (status == Status::kPaused) {
        conflict("cannot remove container \"" + id +
                 "\": container is paused and must be unpaused first");
      }
      if (running || status == Status::kRestarting) {
        conflict("cannot remove container \"" + id +
                 "\": container is running: stop the container before removing or force remove");
      }
      if (status == Status::kRemoving) {
        conflict("removal of container " + id + " is already in progress");
      }
      return;
  }
}

}  // namespace hull::engine
