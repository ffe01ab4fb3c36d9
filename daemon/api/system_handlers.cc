// _ping, version, info, auth, events, system/df.
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <thread>

#include "daemon/api/build_events.h"
#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/api/time_query.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

const Headers kNoCache{{"Cache-Control", "no-cache, no-store, must-revalidate"},
                       {"Pragma", "no-cache"},
                       {"Builder-Version", "1"},  // the classic builder
                       {"Swarm", "inactive"}};

utsname hostNames() {
  utsname names{};
  uname(&names);
  return names;
}

void ping(Exchange& exchange) {
  exchange.reply(200, "text/plain; charset=utf-8", "OK", kNoCache);
}

void version(Exchange& exchange) {
  const utsname host = hostNames();
  const std::string api = "1." + std::to_string(kMaxApiMinor);
  const std::string least = "1." + std::to_string(kMinApiMinor);
  exchange.json(200, dump({{"Platform", {{"Name", "Hull"}}},
                           {"Components", Json::array({{{"Name", "Engine"},
                                                        {"Version", kHullVersion},
                                                        {"Details",
                                                         {{"ApiVersion", api},
                                                          {"MinAPIVersion", least},
                                                          {"Os", "linux"},
                                                          {"Arch", "amd64"},
                                                          {"KernelVersion", host.release},
                                                          {"Experimental", "false"},
                                                          {"GitCommit", ""},
                                                          {"GoVersion", ""},
                                                          {"BuildTime", ""}}}}})},
                           {"Version", kHullVersion},
                           {"ApiVersion", api},
                           {"MinAPIVersion", least},
                           {"GitCommit", ""},
                           {"GoVersion", ""},
                           {"Os", "linux"},
                           {"Arch", "amd64"},
                           {"KernelVersion", host.release},
                           {"BuildTime", ""}}));
}

void info(Exchange& exchange, Engine& engine) {
  const utsname host = hostNames();
  struct sysinfo memory {};
  sysinfo(&memory);
  int running = 0, paused = 0, stopped = 0;
  for (const auto& container : engine.containers().list()) {
    const Status status = container->state().status;
    ++(status == Status::kRunning ? running : status == Status::kPaused ? paused : stopped);
  }
  Json warnings = Json::array();
  if (!engine.parts().network) {
    warnings.push_back("WARNING: containers have no network: " + engine.parts().network_error);
  }
  exchange.json(200,
                dump({{"ID", engine.id()},
                      {"Name", host.nodename},
                      {"Containers", running + paused + stopped},
                      {"ContainersRunning", running},
                      {"ContainersPaused", paused},
                      {"ContainersStopped", stopped},
                      {"Images", engine.images().list().size()},
                      {"Driver", "hull"},
                      {"DriverStatus", Json::array({Json::array({"Root disks", "stitched ext4"})})},
                      {"SystemStatus", nullptr},
                      {"Plugins",
                       {{"Volume", {kDiskDriver, kLocalDriver}},
                        {"Network", {"bridge", "null"}},
                        {"Authorization", nullptr},
                        {"Log", {"json-file"}}}},
                      {"MemoryLimit", true},
                      {"SwapLimit", false},
                      {"CpuCfsPeriod", true},
                      {"CpuCfsQuota", true},
                      {"CPUShares", false},
                      {"CPUSet", false},
                      {"PidsLimit", true},
                      {"IPv4Forwarding", true},
                      {"Debug", false},
                      {"NFd", 0},
                      {"OomKillDisable", false},
                      {"NGoroutines", 0},
                      {"SystemTime", timeText(nowNs())},
                      {"LoggingDriver", "json-file"},
                      {"CgroupDriver", "none"},
                      {"CgroupVersion", "2"},
                      {"NEventsListener", 0},
                      {"KernelVersion", host.release},
                      {"OperatingSystem", "Hull (each container in its own virtual machine)"},
                      {"OSVersion", ""},
                      {"OSType", "linux"},
                      {"Architecture", host.machine},
                      {"IndexServerAddress", "https://index.docker.io/v1/"},
                      {"RegistryConfig",
                       {{"InsecureRegistryCIDRs", {"127.0.0.0/8"}},
                        {"IndexConfigs",
                         {{"docker.io",
                           {{"Name", "docker.io"},
                            {"Mirrors", Json::array()},
                            {"Secure", true},
                            {"Official", true}}}}},
                        {"Mirrors", Json::array()}}},
                      {"NCPU", std::thread::hardware_concurrency()},
                      {"MemTotal", static_cast<uint64_t>(memory.totalram) * memory.mem_unit},
                      {"GenericResources", nullptr},
                      {"DockerRootDir", engine.options().root},
                      {"HttpProxy", ""},
                      {"HttpsProxy", ""},
                      {"NoProxy", ""},
                      {"Labels", Json::array()},
                      {"ExperimentalBuild", false},
                      {"ServerVersion", kHullVersion},
                      {"Runtimes", {{"hull", {{"path", "hull-vmm"}}}}},
                      {"DefaultRuntime", "hull"},
                      {"Swarm",
                       {{"NodeID", ""},
                        {"NodeAddr", ""},
                        {"LocalNodeState", "inactive"},
                        {"ControlAvailable", false},
                        {"Error", ""},
                        {"RemoteManagers", nullptr}}},
                      {"LiveRestoreEnabled", true},
                      {"Isolation", ""},
                      {"InitBinary", "hull-init"},
                      {"SecurityOptions", {"name=kvm"}},
                      {"Warnings", warnings}}));
}

void auth(Exchange& exchange, Engine& engine) {
  const Json body = fields::parseObject(exchange.text(), "the credentials");
  registry::Credentials credentials;
  credentials.username = fields::text(body, "username");
  credentials.password = fields::text(body, "password");
  credentials.identity_token = fields::text(body, "identitytoken");
  std::string server = fields::text(body, "serveraddress");
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (server.starts_with(scheme)) server.erase(0, scheme.size());
  }
  server.resize(std::min(server.find('/'), server.size()));
  if (server.empty() || server == "index.docker.io") server = "docker.io";
  const std::string token = engine.parts().login(server, credentials, engine.options().registry);
  exchange.json(200, dump({{"Status", "Login Succeeded"}, {"IdentityToken", token}}));
}

bool eventFits(const Event& event, const Filters& filters) {
  const auto attribute = [&](const char* key) {
    const auto found = event.attributes.find(key);
    return found == event.attributes.end() ? std::string() : found->second;
  };
  const auto names = [&](const char* type) {
    if (!filters.has(type)) return true;
    if (event.type != type) return false;
    const auto& wanted = filters.get(type);
    return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
      return name == event.id || name == attribute("name") ||
             (name.size() >= 12 && event.id.starts_with(name));
    });
  };
  const auto& actions = filters.get("event");
  const bool action_fits =
      actions.empty() || std::any_of(actions.begin(), actions.end(), [&](const std::string& name) {
        return event.action == name || event.action.starts_with(name + ":");
      });
  const bool image_fits = !filters.has("image") || filters.allows("image", attribute("image")) ||
                          (event.type == "image" && filters.allows("image", event.id));
  return action_fits && image_fits && filters.allows("type", event.type) && names("container") &&
         names("network") && names("volume") && filters.labelsFit(event.attributes);
}

void events(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const Filters filters(query.get("filters"),
                        {"config", "container", "daemon", "event", "image", "label", "network",
                         "node", "plugin", "scope", "secret", "service", "type", "volume"});
  const int64_t until = timeQuery(query.get("until")).value_or(0);
  const auto subscription = engine.events().subscribe(timeQuery(query.get("since")).value_or(0));
  const auto watch = exchange.onDisconnect([&] { subscription->cancel(); });
  Sink& out = exchange.stream(200, "application/json", {});
  while (const auto event = subscription->next(until)) {
    if (eventFits(*event, filters)) out.write(dump(eventJson(*event)));
  }
}

void diskUsage(Exchange& exchange, Engine& engine) {
  Json images = Json::array(), containers = Json::array();
  image::ImageStore::Usage usage = engine.images().usage();
  std::map<std::string, int64_t> users;  // by image id
  for (const auto& container : engine.containers().list()) ++users[container->record().image_id];
  for (const auto& image : engine.images().list()) {
    images.push_back(
        imageSummary(image, users[image.id.text()], static_cast<int64_t>(usage.shared[image.id])));
  }
  for (const auto& container : engine.containers().list()) {
    containers.push_back(containerSummary(engine, *container, true));
  }
  exchange.json(200, dump({{"LayersSize", usage.layers},
                           {"Images", images},
                           {"Containers", containers},
                           {"Volumes", volumesUsageJson(engine)},
                           {"BuildCache", buildCacheUsage(engine)}}));
}

}  // namespace

void addSystemRoutes(Router& router, Engine& engine) {
  router.add("GET", "/_ping", ping);
  router.add("GET", "/version", version);
  router.add("GET", "/info", [&](Exchange& exchange) { info(exchange, engine); });
  router.add("POST", "/auth", [&](Exchange& exchange) { auth(exchange, engine); });
  router.add("GET", "/events", [&](Exchange& exchange) { events(exchange, engine); });
  router.add("GET", "/system/df", [&](Exchange& exchange) { diskUsage(exchange, engine); });
}

Router makeRouter(Engine& engine) {
  Router router;
  addSystemRoutes(router, engine);
  addContainerRoutes(router, engine);
  addStreamRoutes(router, engine);
  addArchiveRoutes(router, engine);
  addTransferRoutes(router, engine);
  addImageRoutes(router, engine);
  addBuildRoutes(router, engine);
  addNetworkRoutes(router, engine);
  addVolumeRoutes(router, engine);
  return router;
}

}  // namespace hull::engine::api
