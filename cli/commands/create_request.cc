// The request that the options of `create` and `run` make.
#include <fmt/format.h>
#include <string.h>

#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/client/key_values.h"
#include "cli/client/mounts.h"
#include "cli/commands/context.h"
#include "cli/commands/create_options.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

// "K" alone takes the value of this process's environment; unset, it is left out.
void addEnvironment(json& list, const std::string& item) {
  if (item.empty() || item[0] == '=') {
    throw Exit{kExitEngine, fmt::format("invalid environment variable: '{}'", item)};
  }
  if (item.find('=') != std::string::npos) {
    list.push_back(item);
  } else if (const char* value = getenv(item.c_str())) {
    list.push_back(item + "=" + value);
  }
}

// The lines of an --env-file or --label-file, without comments.
std::vector<std::string> linesOf(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Exit{kExitEngine, fmt::format("open {}: {}", path, strerror(errno))};
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    line.erase(0, line.find_first_not_of(" \t"));
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  return lines;
}

uint16_t parsePort(std::string_view text, const std::string& whole) {
  uint16_t port = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failed != std::errc{} || end != text.data() + text.size() || port == 0) {
    throw Exit{kExitEngine, fmt::format("invalid port in \"{}\": {} (ports are 1 to 65535)", whole,
                                        text.empty() ? "none given" : std::string(text))};
  }
  return port;
}

std::pair<uint16_t, uint16_t> parseRange(std::string_view text, const std::string& whole) {
  const size_t dash = text.find('-');
  const uint16_t first = parsePort(text.substr(0, dash), whole);
  const uint16_t last =
      dash == std::string_view::npos ? first : parsePort(text.substr(dash + 1), whole);
  if (last < first) throw Exit{kExitEngine, fmt::format("invalid port range in \"{}\"", whole)};
  return {first, last};
}

// [[address:]host port or range:]container port or range[/protocol]
void addPublished(json& exposed, json& bindings, const std::string& spec) {
  std::string rest = spec, protocol = "tcp", address, host;
  if (const size_t slash = rest.rfind('/'); slash != std::string::npos) {
    protocol = rest.substr(slash + 1);
    rest.resize(slash);
  }
  if (protocol != "tcp" && protocol != "udp") {
    throw Exit{kExitEngine,
               fmt::format("invalid protocol in \"{}\": {} (tcp or udp)", spec, protocol)};
  }
  std::string container = rest;
  if (const size_t colon = rest.rfind(':'); colon != std::string::npos) {
    container = rest.substr(colon + 1);
    host = rest.substr(0, colon);
    if (const size_t second = host.rfind(':'); second != std::string::npos) {
      address = host.substr(0, second);
      host = host.substr(second + 1);
      if (address.starts_with('[') && address.ends_with(']'))
        address = address.substr(1, address.size() - 2);
    }
  }
  const auto [first, last] = parseRange(container, spec);
  std::optional<std::pair<uint16_t, uint16_t>> host_range;
  if (!host.empty()) host_range = parseRange(host, spec);
  if (host_range && host_range->second - host_range->first != last - first) {
    throw Exit{kExitEngine, fmt::format("invalid ranges in \"{}\": they differ in length", spec)};
  }
  for (int i = 0; i <= last - first; ++i) {
    const std::string key = fmt::format("{}/{}", first + i, protocol);
    exposed[key] = json::object();
    bindings[key].push_back(
        {{"HostIp", address},
         {"HostPort", host_range ? std::to_string(host_range->first + i) : ""}});
  }
}

json ulimit(const std::string& item) {
  const size_t equals = item.find('=');
  long long soft = 0, hard = 0;
  const int read = equals == std::string::npos
                       ? 0
                       : sscanf(item.c_str() + equals + 1, "%lld:%lld", &soft, &hard);
  if (read < 1)
    throw Exit{kExitEngine, fmt::format("invalid ulimit \"{}\" (name=soft[:hard])", item)};
  return {{"Name", item.substr(0, equals)}, {"Soft", soft}, {"Hard", read == 2 ? hard : soft}};
}

// "1m30s" → nanoseconds, as Go writes durations.
int64_t duration(const std::string& text, const char* option) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  double total = 0;
  bool bad = text.empty();
  for (std::string_view rest = text; !rest.empty() && !bad;) {
    double number = 0;
    const auto [end, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const size_t size = std::min(rest.find_first_of("0123456789."), rest.size());
    const auto* unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& one) {
      return one.first == rest.substr(0, size);
    });
    bad = failed != std::errc{} || unit == std::end(kUnits) || number < 0;
    if (!bad) total += number * unit->second;
    rest.remove_prefix(size);
  }
  if (bad || total > 9e18) {
    throw Exit{kExitEngine, fmt::format("invalid argument \"{}\" for \"{}\" flag: no duration "
                                        "(write it like 30s or 1m30s)",
                                        text, option)};
  }
  return static_cast<int64_t>(total);
}

json healthOf(const CreateOptions::Health& health) {
  if (health.none) return {{"Test", {"NONE"}}};
  json check = json::object();
  if (!health.command.empty()) check["Test"] = {"CMD-SHELL", health.command};
  const std::tuple<const char*, const char*, const std::string&> times[] = {
      {"Interval", "--health-interval", health.interval},
      {"Timeout", "--health-timeout", health.timeout},
      {"StartPeriod", "--health-start-period", health.start_period},
      {"StartInterval", "--health-start-interval", health.start_interval}};
  for (const auto& [key, option, text] : times) {
    if (!text.empty()) check[key] = duration(text, option);
  }
  if (health.retries != 0) check["Retries"] = health.retries;
  return check;
}

// "seccomp=FILE" is the file's contents to the engine.
std::string securityOption(const std::string& option) {
  constexpr std::string_view kSeccomp = "seccomp=";
  if (!option.starts_with(kSeccomp)) return option;
  const std::string value = option.substr(kSeccomp.size());
  if (value == "unconfined" || value == "builtin" || value.starts_with('{')) return option;
  std::ifstream file(value);
  if (!file) {
    throw Exit{kExitEngine,
               fmt::format("opening seccomp profile ({}) failed: {}", value, strerror(errno))};
  }
  return std::string(kSeccomp) +
         std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

json deviceOf(const std::string& text) {
  const size_t first = text.find(':'), second = text.find(':', first + 1);
  const std::string path = text.substr(0, first);
  json device = {{"PathOnHost", path}, {"PathInContainer", path}, {"CgroupPermissions", "rwm"}};
  if (first == std::string::npos) return device;
  const std::string inside =
      text.substr(first + 1, second == std::string::npos ? std::string::npos : second - first - 1);
  if (inside.starts_with('/')) device["PathInContainer"] = inside;
  return device;
}

// Limits, and what concerns the host or its kernel.
void addHostConfig(const CreateOptions& o, json& config) {
  const std::pair<const char*, int64_t> numbers[] = {{"CpuShares", o.cpu_shares},
                                                     {"CpuQuota", o.cpu_quota},
                                                     {"CpuPeriod", o.cpu_period},
                                                     {"OomScoreAdj", o.oom_score_adj},
                                                     {"BlkioWeight", o.blkio_weight}};
  for (const auto& [key, value] : numbers) {
    if (value != 0) config[key] = value;
  }
  const std::pair<const char*, const std::string&> texts[] = {
      {"CpusetCpus", o.cpuset}, {"IpcMode", o.ipc},
      {"PidMode", o.pid},       {"UTSMode", o.uts},
      {"UsernsMode", o.userns}, {"CgroupnsMode", o.cgroupns},
      {"Runtime", o.runtime},   {"CgroupParent", o.cgroup_parent}};
  for (const auto& [key, text] : texts) {
    if (!text.empty()) config[key] = text;
  }
  addDeviceRates(o.device_rates, config);
  if (!o.reservation.empty()) {
    config["MemoryReservation"] = parseSize(o.reservation, "--memory-reservation");
  }
  if (o.oom_kill_disable) config["OomKillDisable"] = true;
  if (!o.gpus.empty()) {
    config["DeviceRequests"] = json::array({{{"Count", -1}, {"Capabilities", {{"gpu"}}}}});
  }
  for (const auto& device : o.devices) config["Devices"].push_back(deviceOf(device));
  if (!o.storage.empty()) config["StorageOpt"] = keyValues(o.storage);
  if (!o.log_driver.empty() || !o.log_opts.empty()) {
    config["LogConfig"] = {{"Type", o.log_driver}, {"Config", keyValues(o.log_opts)}};
  }
}

std::string networkMode(const CreateOptions& o) {
  return o.networks.empty() ? "default" : o.networks.front();
}

// What is asked of the places in networks; the first is the network mode's.
json networkingConfig(const CreateOptions& o) {
  json endpoints = json::object();
  for (const auto& name : o.networks) endpoints[name] = json::object();
  json first = json::object();
  if (!o.aliases.empty()) first["Aliases"] = o.aliases;
  if (!o.mac.empty()) first["MacAddress"] = o.mac;
  if (!o.address.empty()) first["IPAMConfig"]["IPv4Address"] = o.address;
  if (!o.address6.empty()) first["IPAMConfig"]["IPv6Address"] = o.address6;
  if (!first.empty()) endpoints[networkMode(o)] = first;
  return {{"EndpointsConfig", endpoints}};
}

json hostConfig(const CreateOptions& o, json& exposed) {
  json bindings = json::object();
  for (const auto& spec : o.publish) addPublished(exposed, bindings, spec);
  json config = {{"AutoRemove", o.remove},     {"NetworkMode", networkMode(o)},
                 {"PortBindings", bindings},   {"ReadonlyRootfs", o.read_only},
                 {"Privileged", o.privileged}, {"PublishAllPorts", o.publish_all}};
  if (!o.memory.empty()) config["Memory"] = parseSize(o.memory, "-m, --memory");
  if (o.cpus < 0) throw Exit{kExitEngine, "invalid --cpus: must not be negative"};
  if (o.cpus > 0) config["NanoCpus"] = static_cast<int64_t>(o.cpus * 1e9);
  if (o.pids_limit != 0) config["PidsLimit"] = o.pids_limit;
  if (!o.shm_size.empty()) config["ShmSize"] = parseSize(o.shm_size, "--shm-size");
  if (!o.restart.empty()) config["RestartPolicy"] = restartPolicy(o.restart);
  if (o.init) config["Init"] = true;
  for (const auto& item : o.tmpfs) {
    const size_t colon = item.find(':');
    config["Tmpfs"][item.substr(0, colon)] =
        colon == std::string::npos ? "" : item.substr(colon + 1);
  }
  for (const auto& item : o.ulimits) config["Ulimits"].push_back(ulimit(item));
  if (!o.sysctls.empty()) config["Sysctls"] = keyValues(o.sysctls);
  addHostConfig(o, config);
  for (const auto& option : o.security) config["SecurityOpt"].push_back(securityOption(option));
  const std::pair<const char*, const std::vector<std::string>&> lists[] = {
      {"ExtraHosts", o.add_host},
      {"Dns", o.dns},
      {"DnsSearch", o.dns_search},
      {"DnsOptions", o.dns_options},
      {"CapAdd", o.cap_add},
      {"CapDrop", o.cap_drop},
      {"VolumesFrom", o.volumes_from},
      {"GroupAdd", o.group_add},
      {"DeviceCgroupRules", o.device_rules}};
  for (const auto& [key, list] : lists) {
    if (!list.empty()) config[key] = list;
  }
  const ClientPaths paths = clientPaths();
  for (const auto& item : o.mounts) config["Mounts"].push_back(mountOption(item, paths));
  if (!o.volume_driver.empty()) config["VolumeDriver"] = o.volume_driver;
  return config;
}

}  // namespace

json environmentOf(const std::vector<std::string>& files, const std::vector<std::string>& items) {
  json list = json::array();
  for (const auto& path : files) {
    for (const auto& line : linesOf(path)) addEnvironment(list, line);
  }
  for (const auto& item : items) addEnvironment(list, item);
  return list;
}

json restartPolicy(const std::string& text) {
  const size_t colon = text.find(':');
  json policy = {{"Name", text.substr(0, colon)}, {"MaximumRetryCount", 0}};
  if (colon != std::string::npos) {
    int64_t count = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, failed] = std::from_chars(text.data() + colon + 1, end, count);
    if (failed != std::errc{} || rest != end) {
      throw Exit{kExitEngine, fmt::format("invalid restart policy \"{}\": maximum retry count must "
                                          "be a number",
                                          text)};
    }
    policy["MaximumRetryCount"] = count;
  }
  return policy;
}

json createBody(const CreateOptions& o) {
  json exposed = json::object();
  for (const auto& port : o.expose)
    exposed[port.find('/') == std::string::npos ? port + "/tcp" : port] = json::object();
  json host = hostConfig(o, exposed), volumes = json::object();
  const ClientPaths paths = clientPaths();
  for (const auto& item : o.volumes) addVolumeOption(item, paths, volumes, host);
  const bool attached = !o.detach;
  std::vector<std::string> labels;
  for (const auto& path : o.label_files) {
    for (const auto& line : linesOf(path)) labels.push_back(line);
  }
  labels.insert(labels.end(), o.labels.begin(), o.labels.end());
  json body = {{"Image", o.words.at(0)},
               {"Env", environmentOf(o.env_files, o.env)},
               {"Tty", o.tty},
               {"OpenStdin", o.interactive},
               {"StdinOnce", o.interactive && attached},
               {"AttachStdin", o.interactive && attached},
               {"AttachStdout", attached},
               {"AttachStderr", attached},
               {"Labels", keyValues(labels)},
               {"ExposedPorts", exposed},
               {"HostConfig", host},
               {"NetworkingConfig", networkingConfig(o)}};
  body.update(volumes);
  if (o.words.size() > 1)
    body["Cmd"] = std::vector<std::string>(o.words.begin() + 1, o.words.end());
  if (o.entrypoint_given) {
    body["Entrypoint"] = o.entrypoint.empty() ? json::array({""}) : json::array({o.entrypoint});
  }
  const std::pair<const char*, const std::string&> texts[] = {{"WorkingDir", o.workdir},
                                                              {"User", o.user},
                                                              {"Hostname", o.hostname},
                                                              {"Domainname", o.domainname},
                                                              {"StopSignal", o.stop_signal}};
  for (const auto& [key, text] : texts) {
    if (!text.empty()) body[key] = text;
  }
  if (o.stop_timeout >= 0) body["StopTimeout"] = o.stop_timeout;
  if (const json health = healthOf(o.health); !health.empty()) body["Healthcheck"] = health;
  return body;
}

}  // namespace hull::cli
