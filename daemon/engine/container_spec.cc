#include "daemon/engine/container_spec.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr int64_t kNanoCpu = 1'000'000'000;
constexpr int64_t kMaxCpus = 64;

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}
[[noreturn]] void notSupported(const std::string& message) {
  throw Error(ErrorKind::kNotSupported, message);
}

std::string keyOf(const std::string& variable) {
  return variable.substr(0, variable.find('='));
}

// --- completing the documents ---

Json defaultHostConfig() {
  return Json::parse(R"({
    "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "bridge", "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
    "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
    "CgroupnsMode": "private", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null,
    "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null, "OomScoreAdj": 0,
    "PidMode": "", "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false,
    "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 67108864, "Runtime": "hull",
    "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
    "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
    "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "",
    "Devices": [], "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0,
    "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": null, "PidsLimit": null,
    "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
    "MaskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
      "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
      "/sys/devices/virtual/powercap"],
    "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]})");
}

Json completeHostConfig(const Json* asked) {
  Json host = defaultHostConfig();
  if (!asked) return host;
  if (!asked->is_object()) fields::wrongType("HostConfig", "an object");
  for (const auto& [key, value] : asked->items()) {
    if (!value.is_null()) host[key] = value;
  }
  if (fields::text(host, "NetworkMode").empty() || host["NetworkMode"] == "default") {
    host["NetworkMode"] = "bridge";
  }
  if (fields::integer(host, "ShmSize") == 0) host["ShmSize"] = 67108864;
  if (fields::text(host, "Runtime").empty()) host["Runtime"] = "hull";
  if (fields::text(host, "IpcMode").empty()) host["IpcMode"] = "private";
  if (const Json* log = fields::find(host, "LogConfig")) {
    if (fields::text(*log, "Type").empty()) host["LogConfig"]["Type"] = "json-file";
    if (!fields::find(*log, "Config")) host["LogConfig"]["Config"] = Json::object();
  }
  Json& restart = host["RestartPolicy"];
  if (!restart.is_object()) fields::wrongType("RestartPolicy", "an object");
  if (fields::text(restart, "Name").empty()) restart["Name"] = "no";
  if (!restart.contains("MaximumRetryCount")) restart["MaximumRetryCount"] = 0;
  if (fields::boolean(host, "Privileged")) {
    host["MaskedPaths"] = Json::array();
    host["ReadonlyPaths"] = Json::array();
  }
  return host;
}

void mergeKeys(Json& config, const char* key, const std::vector<std::string>& more) {
  Json& object = config[key];
  if (object.is_null()) object = Json::object();
  if (!object.is_object()) fields::wrongType(key, "an object");
  for (const std::string& name : more) {
    if (!object.contains(name)) object[name] = Json::object();
  }
}

// docker/cli and moby: runconfig.Merge.
void mergeCommand(Json& config, const image::RuntimeConfig& image) {
  auto entrypoint = fields::texts(config, "Entrypoint");
  auto cmd = fields::texts(config, "Cmd");
  if (entrypoint.empty()) {
    if (cmd.empty() && image.cmd) cmd = *image.cmd;
    if (!fields::find(config, "Entrypoint") && image.entrypoint) entrypoint = *image.entrypoint;
  }
  if (entrypoint.size() == 1 && entrypoint[0].empty()) entrypoint.clear();  // --entrypoint ""
  if (entrypoint.empty() && cmd.empty()) invalid("no command specified");
  config["Entrypoint"] = entrypoint.empty() ? Json() : Json(entrypoint);
  config["Cmd"] = cmd.empty() ? Json() : Json(cmd);
}

Json healthDocument(const image::HealthCheck& health) {
  return {{"Test", health.test},
          {"Interval", health.interval_ns},
          {"Timeout", health.timeout_ns},
          {"StartPeriod", health.start_period_ns},
          {"StartInterval", health.start_interval_ns},
          {"Retries", health.retries}};
}

// What the request leaves out of its health check is the image's (runconfig.Merge).
void mergeHealth(Json& config, const image::RuntimeConfig& image) {
  if (!image.health_check) return;
  Json& health = config["Healthcheck"];
  const Json defaults = healthDocument(*image.health_check);
  if (health.is_null()) {
    health = defaults;
    return;
  }
  if (!health.is_object()) fields::wrongType("Healthcheck", "an object");
  if (fields::texts(health, "Test").empty()) health["Test"] = defaults["Test"];
  for (const char* key : {"Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"}) {
    if (fields::integer(health, key) == 0) health[key] = defaults[key];
  }
}

Json completeConfig(Json config, const image::RuntimeConfig& image) {
  config.erase("HostConfig");
  config.erase("NetworkingConfig");
  for (const char* key : {"Hostname", "Domainname", "User", "WorkingDir", "Image"}) {
    config[key] = fields::text(config, key);
  }
  for (const char* key :
       {"AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"}) {
    config[key] = fields::boolean(config, key);
  }
  if (config["User"].get<std::string>().empty()) config["User"] = image.user;
  if (config["WorkingDir"].get<std::string>().empty()) config["WorkingDir"] = image.working_dir;
  config["Env"] = mergeEnvironment(fields::texts(config, "Env"), image.env);
  auto labels = fields::textMap(config, "Labels");
  labels.insert(image.labels.begin(), image.labels.end());
  config["Labels"] = labels;
  mergeCommand(config, image);
  mergeKeys(config, "ExposedPorts", image.exposed_ports);
  mergeKeys(config, "Volumes", image.volumes);
  if (config["Volumes"].empty()) config["Volumes"] = nullptr;
  if (fields::text(config, "StopSignal").empty() && !image.stop_signal.empty()) {
    config["StopSignal"] = image.stop_signal;
  }
  mergeHealth(config, image);
  config["OnBuild"] = nullptr;
  return config;
}

// --- refusing what would silently mean something else ---

void refuseList(const Json& host, const char* key, const char* sentence) {
  const Json* value = fields::find(host, key);
  if (!value) return;
  if (!value->is_array() && !value->is_object()) fields::wrongType(key, "a list");
  if (!value->empty()) notSupported(sentence);
}

void refuseUnsupported(const Json& host) {
  refuseList(host, "DeviceRequests",
             "GPUs and other device requests are not supported: a container is a virtual machine "
             "and sees no device of the host");
  refuseList(host, "Links", "links are not supported: use a network");
  for (const char* key : {"PidMode", "IpcMode", "UTSMode"}) {
    const std::string mode = fields::text(host, key);
    if (mode == "host" || mode.starts_with("container:")) {
      notSupported(std::string(key) + " \"" + mode +
                   "\": a container is a virtual machine of its own and shares no namespace with "
                   "the host or another container; use a network, a volume or docker exec to "
                   "reach what is in another one");
    }
  }
  if (fields::text(host, "CgroupnsMode") == "host") {
    notSupported("cgroup namespace \"host\": a container has a kernel, and so cgroups, of its own");
  }
  if (!fields::text(host, "CgroupParent").empty()) {
    notSupported(
        "--cgroup-parent: a container's cgroups are inside its virtual machine; limit it "
        "with --memory, --cpus and --pids-limit");
  }
  const std::string runtime = fields::text(host, "Runtime");
  if (runtime != "hull" && runtime != "runc")
    invalid("unknown or invalid runtime name: " + runtime);
}

// --- reading the documents ---

bool networkOf(const Json& host) {
  const std::string mode = fields::text(host, "NetworkMode");
  if (mode == "none") return false;
  if (mode == "host") {
    notSupported(
        "network mode \"host\" is not possible: a container is a virtual machine with a "
        "network of its own; publish its ports with -p instead");
  }
  if (mode.starts_with(kJoinPrefix)) return false;  // no network of its own
  return true;  // whether there is such a network, Networks knows
}

uint16_t portNumber(std::string_view text, const std::string& whole) {
  unsigned value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value > 65535) {
    invalid("invalid port specification: \"" + whole + "\"");
  }
  return static_cast<uint16_t>(value);
}

std::pair<uint16_t, std::string> guestPort(const std::string& port) {
  const size_t slash = port.find('/');
  const std::string protocol = slash == std::string::npos ? "tcp" : port.substr(slash + 1);
  if (protocol != "tcp" && protocol != "udp" && protocol != "sctp") {
    invalid("invalid port specification: \"" + port + "\"");
  }
  const uint16_t number = portNumber(std::string_view(port).substr(0, slash), port);
  if (number == 0) invalid("invalid port specification: \"" + port + "\"");
  return {number, protocol};
}

void addBindings(const std::string& port, const Json& list, std::vector<PortBinding>& ports) {
  const auto [number, protocol] = guestPort(port);
  if (!list.is_array()) fields::wrongType("PortBindings", "lists of bindings");
  for (const Json& item : list) {
    if (protocol == "sctp") {
      notSupported("publish port " + port + ": only TCP and UDP ports can be published");
    }
    PortBinding binding{number, protocol, fields::text(item, "HostIp"), 0};
    const std::string host_port = fields::text(item, "HostPort");
    const size_t dash = host_port.find('-');
    if (!host_port.empty()) {
      binding.host_port = portNumber(std::string_view(host_port).substr(0, dash), host_port);
    }
    if (dash != std::string::npos) {
      binding.host_port_last = portNumber(std::string_view(host_port).substr(dash + 1), host_port);
      if (binding.host_port == 0 || binding.host_port_last < binding.host_port) {
        invalid("invalid range of host ports: \"" + host_port + "\"");
      }
    }
    if (binding.host_address.empty()) binding.host_address = "0.0.0.0";
    ports.push_back(binding);
    if (ports.size() > kMaxPortBindings) invalid("too many published ports");
  }
}

std::vector<PortBinding> portsOf(const Json& config, const Json& host) {
  std::vector<PortBinding> ports;
  std::set<std::string> bound;
  if (const Json* bindings = fields::find(host, "PortBindings")) {
    for (const std::string& port : fields::keys(host, "PortBindings")) {
      const Json& list = (*bindings)[port];
      if (list.is_null()) continue;
      bound.insert(port);
      addBindings(port, list, ports);
    }
  }
  for (const std::string& port : fields::keys(config, "ExposedPorts")) {
    const auto [number, protocol] = guestPort(port);
    if (fields::boolean(host, "PublishAllPorts") && protocol != "sctp" && !bound.contains(port)) {
      ports.push_back({number, protocol, "0.0.0.0", 0});
    }
  }
  return ports;
}

void readSecurity(const Json& host, ContainerSpec& spec) {
  spec.privileged = fields::boolean(host, "Privileged");
  spec.capabilities =
      capabilitySet(fields::texts(host, "CapAdd"), fields::texts(host, "CapDrop"), spec.privileged);
  for (const std::string& option : fields::texts(host, "SecurityOpt")) {
    const size_t split = option.find_first_of("=:");
    const std::string name = option.substr(0, split);
    const std::string value = split == std::string::npos ? "" : option.substr(split + 1);
    if (name == "no-new-privileges") {
      spec.no_new_privileges = value != "false";
    } else if (name != "seccomp" && name != "apparmor" && name != "label" &&
               name != "systempaths" && name != "writable-cgroups") {
      invalid("invalid --security-opt: \"" + option + "\"");
    } else if (name == "systempaths" && value == "unconfined") {
      spec.masked_paths.clear();
      spec.read_only_paths.clear();
    }
  }
}

uint32_t rlimitNumber(const std::string& name) {
  static const std::map<std::string, uint32_t> kNumbers{
      {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
      {"data", RLIMIT_DATA},         {"fsize", RLIMIT_FSIZE},
      {"locks", RLIMIT_LOCKS},       {"memlock", RLIMIT_MEMLOCK},
      {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
      {"nofile", RLIMIT_NOFILE},     {"nproc", RLIMIT_NPROC},
      {"rss", RLIMIT_RSS},           {"rtprio", RLIMIT_RTPRIO},
      {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
      {"stack", RLIMIT_STACK}};
  const auto found = kNumbers.find(name);
  if (found == kNumbers.end()) invalid("invalid ulimit type: " + name);
  return found->second;
}

void readUlimits(const Json& host, ContainerSpec& spec) {
  const Json* list = fields::find(host, "Ulimits");
  if (!list) return;
  if (!list->is_array()) fields::wrongType("Ulimits", "a list");
  for (const Json& item : *list) {
    // −1 is unlimited, which is what it becomes as an unsigned number (RLIM_INFINITY).
    spec.rlimits.push_back({rlimitNumber(fields::text(item, "Name")),
                            static_cast<uint64_t>(fields::integer(item, "Soft")),
                            static_cast<uint64_t>(fields::integer(item, "Hard"))});
  }
}

void readResources(const Json& host, ContainerSpec& spec) {
  const int64_t memory = fields::integer(host, "Memory");
  if (memory < 0 || (memory > 0 && static_cast<uint64_t>(memory) < kMinMemoryBytes)) {
    invalid("Minimum memory limit allowed is 6MB");
  }
  spec.memory_bytes = static_cast<uint64_t>(memory);
  int64_t nano = fields::integer(host, "NanoCpus");
  const int64_t quota = fields::integer(host, "CpuQuota");
  if (nano == 0 && quota > 0) {
    const int64_t period = std::max<int64_t>(fields::integer(host, "CpuPeriod"), 0);
    nano = std::min(quota, kMaxCpus * 1'000'000) * kNanoCpu / (period > 0 ? period : 100'000);
  }
  if (nano < 0 || nano > kMaxCpus * kNanoCpu) {
    invalid("range of CPUs is from 0.01 to " + std::to_string(kMaxCpus) + ".00");
  }
  spec.vcpus = static_cast<uint32_t>((nano + kNanoCpu - 1) / kNanoCpu);
  const int64_t shm = fields::integer(host, "ShmSize");
  if (shm < 0) invalid("SHM size can not be less than 0");
  spec.shm_bytes = static_cast<uint64_t>(shm);
  spec.pids_limit = static_cast<uint64_t>(std::max<int64_t>(fields::integer(host, "PidsLimit"), 0));
  readUlimits(host, spec);
}

void readRestart(const Json& host, ContainerSpec& spec) {
  const Json& policy = host.at("RestartPolicy");
  const std::string name = fields::text(policy, "Name");
  spec.restart_attempts = fields::integer(policy, "MaximumRetryCount");
  spec.auto_remove = fields::boolean(host, "AutoRemove");
  if (name == "always") {
    spec.restart = RestartPolicy::kAlways;
  } else if (name == "unless-stopped") {
    spec.restart = RestartPolicy::kUnlessStopped;
  } else if (name == "on-failure") {
    spec.restart = RestartPolicy::kOnFailure;
  } else if (name != "no" && !name.empty()) {
    invalid("invalid restart policy: unknown policy '" + name +
            "'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'");
  }
  if (spec.restart_attempts < 0) {
    invalid("invalid restart policy: maximum retry count cannot be negative");
  }
  if (spec.auto_remove && spec.restart != RestartPolicy::kNo) {
    invalid("can't create 'AutoRemove' container with restart policy");
  }
}

void readConfig(const Json& config, ContainerSpec& spec) {
  spec.arguments = fields::texts(config, "Entrypoint");
  const auto cmd = fields::texts(config, "Cmd");
  spec.arguments.insert(spec.arguments.end(), cmd.begin(), cmd.end());
  spec.env = fields::texts(config, "Env");
  for (const std::string& variable : spec.env) {
    if (keyOf(variable).empty()) invalid("invalid environment variable: " + variable);
  }
  spec.working_dir = fields::text(config, "WorkingDir");
  if (!spec.working_dir.empty() && !spec.working_dir.starts_with('/')) {
    invalid("the working directory '" + spec.working_dir +
            "' is invalid, it needs to be an absolute path");
  }
  spec.user = fields::text(config, "User");
  spec.hostname = fields::text(config, "Hostname");
  spec.domainname = fields::text(config, "Domainname");
  spec.mac_address = fields::text(config, "MacAddress");
  spec.stop_signal = fields::text(config, "StopSignal");
  if (!spec.stop_signal.empty()) signalNumber(spec.stop_signal);
  if (fields::find(config, "StopTimeout")) {
    spec.stop_timeout_s = fields::integer(config, "StopTimeout");
  }
  spec.tty = fields::boolean(config, "Tty");
  spec.open_stdin = fields::boolean(config, "OpenStdin");
  spec.stdin_once = fields::boolean(config, "StdinOnce");
  spec.labels = fields::textMap(config, "Labels");
  spec.exposed_ports = fields::keys(config, "ExposedPorts");
}

}  // namespace

std::vector<std::string> mergeEnvironment(const std::vector<std::string>& mine,
                                          const std::vector<std::string>& defaults) {
  std::vector<std::string> merged = mine;
  std::set<std::string> names;
  for (const std::string& variable : mine) names.insert(keyOf(variable));
  for (const std::string& variable : defaults) {
    if (!names.contains(keyOf(variable))) merged.push_back(variable);
  }
  return merged;
}

std::vector<std::string> processEnvironment(const std::vector<std::string>& env, bool tty,
                                            const std::string& hostname) {
  std::vector<std::string> result{"PATH=" + std::string(kDefaultPath)};
  if (!hostname.empty()) result.push_back("HOSTNAME=" + hostname);
  if (tty) result.emplace_back("TERM=xterm");
  for (const std::string& variable : env) {
    const std::string key = keyOf(variable);
    const bool removes = variable.find('=') == std::string::npos;
    const auto old = std::find_if(result.begin(), result.end(),
                                  [&](const std::string& item) { return keyOf(item) == key; });
    if (removes) {
      if (old != result.end()) result.erase(old);
    } else if (old != result.end()) {
      *old = variable;
    } else {
      result.push_back(variable);
    }
  }
  return result;
}

std::string imageOf(std::string_view create_body) {
  const Json body = fields::parseObject(create_body, "the container's configuration");
  const std::string image = fields::text(body, "Image");
  if (image.empty()) invalid("no image specified: field Image is empty");
  return image;
}

ContainerDocuments completeDocuments(std::string_view create_body,
                                     const image::RuntimeConfig& image_config) {
  const Json body = fields::parseObject(create_body, "the container's configuration");
  const Json host = completeHostConfig(fields::find(body, "HostConfig"));
  Json endpoints = Json::object();
  if (const Json* networking = fields::find(body, "NetworkingConfig")) {
    if (const Json* asked = fields::find(*networking, "EndpointsConfig")) endpoints = *asked;
    if (!endpoints.is_object()) fields::wrongType("EndpointsConfig", "an object");
  }
  ContainerDocuments documents{fields::dump(completeConfig(body, image_config)), fields::dump(host),
                               fields::dump(endpoints)};
  checkJoining(create_body, documents);
  refuseUnsupported(host);
  (void)specOf(documents);  // everything else that is wrong
  return documents;
}

std::vector<std::string> warningsOf(const ContainerDocuments& documents) {
  return optionWarnings(fields::parseObject(documents.host_config, "the host configuration"));
}

ContainerSpec specOf(const ContainerDocuments& documents) {
  const Json config = fields::parseObject(documents.config, "the container's configuration");
  const Json host = fields::parseObject(documents.host_config, "the host configuration");
  const Json endpoints = fields::parseObject(documents.endpoints, "the endpoints");
  ContainerSpec spec;
  readConfig(config, spec);
  spec.network = networkOf(host);
  spec.network_mode = fields::text(host, "NetworkMode");
  if (spec.network_mode.starts_with(kJoinPrefix)) {
    spec.joins = spec.network_mode.substr(kJoinPrefix.size());
  }
  spec.ports = portsOf(config, host);
  readRestart(host, spec);
  readResources(host, spec);
  spec.mounts = readMounts(config, host);
  spec.read_only_root = fields::boolean(host, "ReadonlyRootfs");
  spec.extra_hosts = fields::texts(host, "ExtraHosts");
  spec.dns = fields::texts(host, "Dns");
  spec.dns_search = fields::texts(host, "DnsSearch");
  spec.dns_options = fields::texts(host, "DnsOptions");
  spec.group_add = fields::texts(host, "GroupAdd");
  spec.masked_paths = fields::texts(host, "MaskedPaths");
  spec.read_only_paths = fields::texts(host, "ReadonlyPaths");
  readSecurity(host, spec);
  spec.health = readHealth(config);
  spec.log = readLog(host);
  spec.limits = readLimits(host);
  spec.guest = readGuest(host);
  if (spec.vcpus == 0) spec.vcpus = static_cast<uint32_t>(spec.limits.cpus.size());
  return spec;
}

}  // namespace hull::engine
