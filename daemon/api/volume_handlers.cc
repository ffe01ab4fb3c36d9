// Volumes, and what containers have mounted.
#include <algorithm>
#include <charconv>
#include <climits>

#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

constexpr unsigned kAnonymousOnlySince = 42;

bool volumeFits(Volumes& volumes, const Filters& filters, const VolumeRecord& volume) {
  if (filters.has("dangling") &&
      filters.flag("dangling", false) != volumes.usersOf(volume.name).empty()) {
    return false;
  }
  const auto& names = filters.get("name");
  const bool name_fits = names.empty() || std::any_of(names.begin(), names.end(), [&](auto& part) {
                           return volume.name.find(part) != std::string::npos;
                         });
  return name_fits && filters.allows("driver", volume.driver) && filters.labelsFit(volume.labels);
}

void list(Exchange& exchange, Engine& engine) {
  Volumes& volumes = engine.containers().volumes();
  const Filters filters(exchange.request().query.get("filters"),
                        {"dangling", "driver", "label", "name"});
  Json found = Json::array();
  for (const VolumeRecord& volume : volumes.list()) {
    if (volumeFits(volumes, filters, volume)) found.push_back(volumeJson(engine, volume, false));
  }
  exchange.json(200, dump({{"Volumes", found}, {"Warnings", nullptr}}));
}

void create(Exchange& exchange, Engine& engine) {
  const VolumeRequest request = parseVolumeRequest(exchange.text());
  const VolumeRecord made = engine.containers().volumes().create(request);
  exchange.json(201, dump(volumeJson(engine, made, false)));
}

void remove(Exchange& exchange, Engine& engine) {
  try {
    engine.containers().volumes().remove(exchange.parameter(0));
  } catch (const Error& error) {
    const bool forced = exchange.request().query.flag("force");
    if (!forced || error.kind() != ErrorKind::kNotFound) throw;
  }
  exchange.empty(204);
}

// Of "/v1.41/…"; clients without one are the newest.
unsigned minorVersion(const std::string& path) {
  constexpr std::string_view kPrefix = "/v1.";
  unsigned minor = UINT_MAX;
  if (path.starts_with(kPrefix)) {
    std::from_chars(path.data() + kPrefix.size(), path.data() + path.size(), minor);
  }
  return minor;
}

// Since API 1.42 only those without a name, unless all=true.
void prune(Exchange& exchange, Engine& engine) {
  Volumes& volumes = engine.containers().volumes();
  const Filters filters(exchange.request().query.get("filters"), {"all", "label", "label!"});
  const bool all =
      minorVersion(exchange.request().path) < kAnonymousOnlySince || filters.flag("all", false);
  Json deleted = Json::array();
  uint64_t reclaimed = 0;
  for (const VolumeRecord& volume : volumes.list()) {
    if (!all && !volume.labels.contains(kAnonymousLabel)) continue;
    if (!filters.labelsFit(volume.labels) || !volumes.usersOf(volume.name).empty()) continue;
    const uint64_t bytes = volumes.bytesOf(volume);
    try {
      volumes.remove(volume.name);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kConflict && error.kind() != ErrorKind::kNotFound) throw;
      continue;  // somebody else was faster
    }
    deleted.push_back(volume.name);
    reclaimed += bytes;
  }
  engine.events().publish({"volume", "prune", "", {{"reclaimed", std::to_string(reclaimed)}}, 0});
  exchange.json(200, dump({{"VolumesDeleted", deleted}, {"SpaceReclaimed", reclaimed}}));
}

}  // namespace

Json volumeJson(Engine& engine, const VolumeRecord& volume, bool usage) {
  Volumes& volumes = engine.containers().volumes();
  Json json{{"CreatedAt", timeText(volume.created_ns / 1'000'000'000 * 1'000'000'000)},
            {"Driver", volume.driver},
            {"Labels", volume.labels.empty() ? Json() : Json(volume.labels)},
            {"Mountpoint", volumes.mountpoint(volume)},
            {"Name", volume.name},
            {"Options", volume.options.empty() ? Json() : Json(volume.options)},
            {"Scope", "local"}};
  if (usage) {
    json["UsageData"] = {{"Size", volumes.bytesOf(volume)},
                         {"RefCount", volumes.usersOf(volume.name).size()}};
  }
  return json;
}

Json volumesUsageJson(Engine& engine) {
  Json all = Json::array();
  for (const VolumeRecord& volume : engine.containers().volumes().list()) {
    all.push_back(volumeJson(engine, volume, true));
  }
  return all;
}

Json mountsJson(const Container& container) {
  Json mounts = Json::array();
  for (const MountPoint& point : container.mounts()) {
    Json mount{{"Type", toString(point.type)},     {"Source", point.source},
               {"Destination", point.destination}, {"Mode", point.mode},
               {"RW", !point.read_only},           {"Propagation", point.propagation}};
    if (point.type == MountType::kVolume) {
      mount["Name"] = point.name;
      mount["Driver"] = point.driver;
    }
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

void addVolumeRoutes(Router& router, Engine& engine) {
  router.add("GET", "/volumes", [&](Exchange& e) { list(e, engine); });
  router.add("POST", "/volumes/create", [&](Exchange& e) { create(e, engine); });
  router.add("POST", "/volumes/prune", [&](Exchange& e) { prune(e, engine); });
  router.add("GET", "/volumes/{name}", [&](Exchange& e) {
    const VolumeRecord volume = engine.containers().volumes().get(e.parameter(0));
    e.json(200, dump(volumeJson(engine, volume, false)));
  });
  router.add("DELETE", "/volumes/{name}", [&](Exchange& e) { remove(e, engine); });
}

}  // namespace hull::engine::api
