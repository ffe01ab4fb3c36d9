#include <sys/stat.h>

#include "daemon/api/shapes.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/names.h"

namespace hull::engine::api {

namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

Json healthJson(const HealthState& health) {
  Json log = Json::array();
  for (const HealthProbe& probe : health.probes) {
    log.push_back({{"Start", timeText(probe.start_ns)},
                   {"End", timeText(probe.end_ns)},
                   {"ExitCode", probe.exit_code},
                   {"Output", probe.output}});
  }
  return {
      {"Status", toString(health.status)}, {"FailingStreak", health.failing_streak}, {"Log", log}};
}

Json stateJson(const ContainerState& state) {
  Json json{{"Status", toString(state.status)},
            {"Running", state.running()},
            {"Paused", state.status == Status::kPaused},
            {"Restarting", state.status == Status::kRestarting},
            {"OOMKilled", state.out_of_memory},
            {"Dead", state.status == Status::kDead},
            {"Pid", state.pid},
            {"ExitCode", state.exit_code},
            {"Error", state.error},
            {"StartedAt", timeText(state.started_ns)},
            {"FinishedAt", timeText(state.finished_ns)}};
  if (state.health.status != HealthStatus::kNone) json["Health"] = healthJson(state.health);
  return json;
}

std::string healthText(const HealthState& health) {
  if (health.status == HealthStatus::kNone) return {};
  if (health.status == HealthStatus::kStarting) return " (health: starting)";
  return " (" + std::string(toString(health.status)) + ")";
}

std::string statusText(const ContainerState& state) {
  const int64_t now = nowNs();
  const std::string code = std::to_string(state.exit_code);
  const auto since = [&](int64_t ns) { return humanDuration((now - ns) / kSecondNs); };
  switch (state.status) {
    case Status::kCreated:
      return "Created";
    case Status::kRunning:
      return "Up " + since(state.started_ns) + healthText(state.health);
    case Status::kPaused:
      return "Up " + since(state.started_ns) + " (Paused)";
    case Status::kRestarting:
      return "Restarting (" + code + ") " + since(state.finished_ns) + " ago";
    case Status::kExited:
      return "Exited (" + code + ") " + since(state.finished_ns) + " ago";
    case Status::kRemoving:
      return "Removal In Progress";
    case Status::kDead:
      return "Dead";
  }
  return {};
}

std::string commandText(const std::vector<std::string>& arguments) {
  std::string text;
  for (const std::string& argument : arguments) {
    if (!text.empty()) text += ' ';
    const bool quote = !text.empty() && argument.find(' ') != std::string::npos;
    text += quote ? "'" + argument + "'" : argument;
  }
  return text;
}

}  // namespace

uint64_t writableBytes(const Container& container) {
  struct stat status {};
  const std::string path = container.vmFolder() + "/writable.ext4";
  if (stat(path.c_str(), &status) != 0) return 0;
  return static_cast<uint64_t>(status.st_blocks) * 512;  // sparse: what it takes on the host
}

Json containerJson(Engine& engine, const Container& container) {
  const ContainerRecord record = container.record();
  const ContainerState state = container.state();
  const ContainerSpec& spec = container.spec();
  Json config = Json::parse(record.documents.config);
  config["Hostname"] = container.hostname();
  const std::vector<std::string> execs = engine.execs().idsOf(record.id);
  const std::vector<std::string> args(spec.arguments.begin() + 1, spec.arguments.end());
  return {{"Id", record.id},
          {"Created", timeText(record.created_ns)},
          {"Path", spec.arguments.front()},
          {"Args", args},
          {"State", stateJson(state)},
          {"Image", record.image_id},
          {"ResolvConfPath", ""},
          {"HostnamePath", ""},
          {"HostsPath", ""},
          {"LogPath", spec.log.driver == LogDriver::kNone ? "" : container.logPath()},
          {"Name", "/" + record.name},
          {"RestartCount", state.restarts},
          {"Driver", "hull"},
          {"Platform", "linux"},
          {"MountLabel", ""},
          {"ProcessLabel", ""},
          {"AppArmorProfile", ""},
          {"ExecIDs", execs.empty() ? Json() : Json(execs)},
          {"HostConfig", Json::parse(record.documents.host_config)},
          {"GraphDriver", {{"Data", nullptr}, {"Name", "hull"}}},
          {"Mounts", mountsJson(container)},
          {"Config", config},
          {"NetworkSettings", networkSettings(engine, container, state)}};
}

Json containerSummary(Engine& engine, const Container& container, bool with_size) {
  const ContainerState state = container.state();
  const ContainerSpec& spec = container.spec();
  Json ports = Json::array();
  for (const PortMapping& port : state.ports) {
    ports.push_back({{"IP", port.host_address},
                     {"PrivatePort", port.guest_port},
                     {"PublicPort", port.host_port},
                     {"Type", port.protocol}});
  }
  Json summary{{"Id", container.id()},
               {"Names", {"/" + container.name()}},
               {"Image", container.image()},
               {"ImageID", container.imageId()},
               {"Command", commandText(spec.arguments)},
               {"Created", container.createdNs() / kSecondNs},
               {"Ports", ports},
               {"Labels", spec.labels},
               {"State", toString(state.status)},
               {"Status", statusText(state)},
               {"HostConfig", {{"NetworkMode", spec.network_mode}}},
               {"NetworkSettings", {{"Networks", networksJson(engine, container, state)}}},
               {"Mounts", mountsJson(container)}};
  if (with_size) {
    const auto image = engine.images().find(container.imageId());
    summary["SizeRw"] = writableBytes(container);
    summary["SizeRootFs"] = writableBytes(container) + (image ? image->size_bytes : 0);
  }
  return summary;
}

}  // namespace hull::engine::api
