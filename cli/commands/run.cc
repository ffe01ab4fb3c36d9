// run, create, start, exec, attach: the commands that put a process in front of the user.

#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "cli/client/mounts.h"
#include "cli/client/session.h"
#include "cli/commands/context.h"
#include "cli/commands/device_rates.h"
#include "cli/commands/pull.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr int kExitEngine = 125;
constexpr int kExitNotExecutable = 126;
constexpr int kExitNotFound = 127;

struct RunOptions {
  bool interactive = false, tty = false, detach = false, remove = false, read_only = false;
  bool privileged = false, publish_all = false, init = false, quiet = false;
  std::string name, workdir, user, entrypoint, memory, hostname, pull = "missing";
  std::string address, address6, mac;
  std::string platform, stop_signal, shm_size, restart, cidfile, domainname;
  double cpus = 0;
  int64_t pids_limit = 0;
  int stop_timeout = -1;
  std::vector<std::string> env, env_files, labels, publish, add_host, dns, cap_add, cap_drop, tmpfs;
  std::vector<std::string> ulimits, security, volumes, attach, expose, group_add, sysctls, mounts;
  std::vector<std::string> volumes_from;
  std::string volume_driver;
  bool entrypoint_given = false;
  std::vector<std::string> networks, aliases, dns_search, dns_options;
  std::vector<std::string> words;  // IMAGE [COMMAND] [ARG…]
  std::vector<std::string> label_files, devices, device_rules, storage, log_opts;
  std::string log_driver, cpuset, reservation, memory_swap, detach_keys;
  std::string ipc, pid, uts, userns, cgroupns, cgroup_parent, runtime, gpus;
  DeviceRates device_rates;
  int64_t cpu_shares = 0, cpu_quota = 0, cpu_period = 0, oom_score_adj = 0, blkio_weight = 0;
  bool sig_proxy = true, oom_kill_disable = false;
  struct Health {
    std::string command, interval, timeout, start_period, start_interval;
    int64_t retries = 0;
    bool none = false;
  } health;
};

void addHealthOptions(CLI::App* command, RunOptions::Health& health) {
  command->add_option("--health-cmd", health.command, "Command that checks its health");
  command->add_option("--health-interval", health.interval, "Time between checks, like 30s");
  command->add_option("--health-timeout", health.timeout, "How long a check may take");
  command->add_option("--health-retries", health.retries, "Failures in a row until unhealthy");
  command->add_option("--health-start-period", health.start_period,
                      "Time to start in, in which failures do not count");
  command->add_option("--health-start-interval", health.start_interval,
                      "Time between checks within the start period");
  command->add_flag("--no-healthcheck", health.none, "Not even the image's health check");
}

void addLimitOptions(CLI::App* command, RunOptions& o) {
  command->add_option("-c,--cpu-shares", o.cpu_shares, "Weight among containers, 1024 by default");
  command->add_option("--cpu-quota", o.cpu_quota, "Microseconds of each period");
  command->add_option("--cpu-period", o.cpu_period, "Period in microseconds");
  command->add_option("--cpuset-cpus", o.cpuset, "CPUs of the host it may use, like 0-2");
  command->add_option("--memory-reservation", o.reservation, "Memory that is kept for it");
  command->add_option("--memory-swap", o.memory_swap,
                      "Accepted for compatibility: there is no swap");
  command->add_option("--oom-score-adj", o.oom_score_adj,
                      "Whom the guest kills first, -1000 to 1000");
  command->add_flag("--oom-kill-disable", o.oom_kill_disable, "Accepted for compatibility");
  command->add_option("--blkio-weight", o.blkio_weight, "Accepted for compatibility");
  addDeviceRateOptions(command, o.device_rates);
  addList(command, "--storage-opt", o.storage, "size=20g: size of its writable disk");
}

void addHostOptions(CLI::App* command, RunOptions& o) {
  addList(command, "--device", o.devices, "Device of the guest's kernel, like /dev/fuse");
  addList(command, "--device-cgroup-rule", o.device_rules, "Device rule, like 'c 1:3 rw'");
  command->add_option("--ipc", o.ipc, "IPC mode: private, shareable or none");
  command->add_option("--pid", o.pid, "Refused: a container has a kernel of its own");
  command->add_option("--uts", o.uts, "Refused: a container has a kernel of its own");
  command->add_option("--userns", o.userns, "Accepted for compatibility");
  command->add_option("--cgroupns", o.cgroupns, "private");
  command->add_option("--cgroup-parent", o.cgroup_parent, "Refused: use --memory, --cpus");
  command->add_option("--runtime", o.runtime, "hull");
  command->add_option("--gpus", o.gpus, "Refused: it sees no device of the host");
  command->add_option("--log-driver", o.log_driver, "json-file, local or none");
  addList(command, "--log-opt", o.log_opts, "Log option, like max-size=10m or max-file=3");
  addList(command, "--label-file", o.label_files, "Read labels from a file");
}

void addCreateOptions(CLI::App* command, RunOptions& o) {
  command->add_flag("-i,--interactive", o.interactive, "Keep standard input open");
  command->add_flag("-t,--tty", o.tty, "Give the container a terminal");
  command->add_flag("--rm", o.remove, "Remove the container when it exits");
  command->add_flag("--read-only", o.read_only, "Mount the root file system read-only");
  command->add_flag("--privileged", o.privileged, "Everything inside the VM, nothing outside");
  command->add_flag("-P,--publish-all", o.publish_all, "Publish all exposed ports");
  command->add_flag("--init", o.init, "Run an init process that reaps children");
  command->add_option("--name", o.name, "Name of the container");
  command->add_option("-w,--workdir", o.workdir, "Working directory inside the container");
  command->add_option("-u,--user", o.user, "User: name|uid[:group|gid]");
  command->add_option("--entrypoint", o.entrypoint, "Overrides the image's ENTRYPOINT")
      ->each([&o](const std::string&) { o.entrypoint_given = true; });
  command->add_option("-m,--memory", o.memory, "Memory limit, like 512m");
  command->add_option("--cpus", o.cpus, "Number of CPUs");
  command->add_option("-h,--hostname", o.hostname, "Host name inside the container");
  command->add_option("--domainname", o.domainname, "Domain name inside the container");
  addList(command, "--network,--net", o.networks, "Network; may be given several times");
  command->add_option("--ip", o.address, "IPv4 address in the (first) network");
  command->add_option("--ip6", o.address6, "IPv6 address in the (first) network");
  command->add_option("--mac-address", o.mac, "MAC address in the (first) network");
  addList(command, "--network-alias,--net-alias", o.aliases,
          "Another name for the container in the (first) network");
  command->add_option("--pull", o.pull, "Pull the image: always, missing, never")
      ->check(CLI::IsMember({"always", "missing", "never"}));
  command->add_flag("-q,--quiet", o.quiet, "No pull output");
  command->add_option("--platform", o.platform, "Platform, like linux/amd64");
  command->add_option("--stop-signal", o.stop_signal, "Signal that stops the container");
  command->add_option("--stop-timeout", o.stop_timeout, "Seconds before it is killed");
  command->add_option("--shm-size", o.shm_size, "Size of /dev/shm");
  command->add_option("--restart", o.restart,
                      "Restart policy: no, always, unless-stopped, on-failure[:N]");
  command->add_option("--pids-limit", o.pids_limit, "Most processes");
  command->add_option("--cidfile", o.cidfile, "Write the container's id to this file");
  addList(command, "-e,--env", o.env, "Environment variable K=V, or K from this environment");
  addList(command, "--env-file", o.env_files, "Read environment variables from a file");
  addList(command, "-l,--label", o.labels, "Label K=V");
  addList(command, "-p,--publish", o.publish,
          "Publish a port: [[address:]host:]container[/tcp|udp]");
  addList(command, "--expose", o.expose, "Expose a port");
  addList(command, "--add-host", o.add_host, "Host-to-address mapping host:address");
  addList(command, "--dns", o.dns, "DNS server");
  addList(command, "--dns-search", o.dns_search, "Domain that is tried for short names");
  addList(command, "--dns-option", o.dns_options, "Option of the resolver");
  addList(command, "--cap-add", o.cap_add, "Add a capability");
  addList(command, "--cap-drop", o.cap_drop, "Drop a capability");
  addList(command, "--tmpfs", o.tmpfs, "Mount a tmpfs: /path[:options]");
  addList(command, "--ulimit", o.ulimits, "Resource limit: name=soft[:hard]");
  addList(command, "--security-opt", o.security, "Security option, like no-new-privileges");
  addList(command, "-v,--volume", o.volumes,
          "Bind mount or volume: [source:]/path[:ro,…]; a path of this host or a volume's name");
  addList(command, "--mount", o.mounts,
          "Mount: type=bind|volume|tmpfs,source=…,target=/path[,readonly,…]");
  addList(command, "--volumes-from", o.volumes_from,
          "Everything another container has mounted: CONTAINER[:ro]");
  command->add_option("--volume-driver", o.volume_driver,
                      "Driver of new volumes of -v: local or disk");
  addList(command, "--group-add", o.group_add, "Additional group");
  addList(command, "--sysctl", o.sysctls, "Kernel parameter of the container, K=V");
  command->add_option("--detach-keys", o.detach_keys, "Keys that detach, ctrl-p,ctrl-q by default");
  command->add_flag("--sig-proxy,!--no-sig-proxy", o.sig_proxy, "Pass signals on to the process");
  addHealthOptions(command, o.health);
  addLimitOptions(command, o);
  addHostOptions(command, o);
}

json keyValues(const std::vector<std::string>& list) {
  json object = json::object();
  for (const auto& item : list) {
    const size_t equals = item.find('=');
    object[item.substr(0, equals)] = equals == std::string::npos ? "" : item.substr(equals + 1);
  }
  return object;
}

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

json environmentOf(const RunOptions& o) {
  json list = json::array();
  for (const auto& path : o.env_files) {
    for (const auto& line : linesOf(path)) addEnvironment(list, line);
  }
  for (const auto& item : o.env) addEnvironment(list, item);
  return list;
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

json healthOf(const RunOptions::Health& health) {
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
void addHostConfig(const RunOptions& o, json& config) {
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

std::string networkMode(const RunOptions& o) {
  return o.networks.empty() ? "default" : o.networks.front();
}

// What is asked of the places in networks; the first is the network mode's.
json networkingConfig(const RunOptions& o) {
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

json hostConfig(const RunOptions& o, json& exposed) {
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

json createBody(const RunOptions& o) {
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
               {"Env", environmentOf(o)},
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

std::string createContainer(Context& context, const RunOptions& o) {
  const json body = createBody(o);
  const std::string target =
      withQuery("/containers/create", {{"name", o.name}, {"platform", o.platform}});
  const std::string& image = o.words[0];
  const auto pull = [&] {
    if (!o.quiet) std::cerr << fmt::format("Unable to find image '{}' locally\n", withTag(image));
    pullImage(context, image, o.platform, o.quiet ? PullOutput::kSilent : PullOutput::kStderr);
  };
  if (o.pull == "always") pullImage(context, image, o.platform, PullOutput::kStderr);
  json created;
  try {
    created = context.engine().post(target, body);
  } catch (const ApiError& error) {
    const bool missing =
        error.status() == 404 && std::string_view(error.what()).starts_with("No such image");
    if (!missing || o.pull == "never") throw;
    pull();
    created = context.engine().post(target, body);
  }
  for (const auto& warning : created.value("Warnings", json::array())) {
    std::cerr << "WARNING: " << warning.get<std::string>() << "\n";
  }
  const std::string id = created.at("Id");
  if (!o.cidfile.empty()) {
    std::ofstream file(o.cidfile);
    if (!(file << id))
      throw Exit{kExitEngine, fmt::format("write {}: {}", o.cidfile, strerror(errno))};
  }
  return id;
}

// The exit status Docker gives to a container that could not start.
int startFailureStatus(std::string_view message) {
  if (message.find("executable file not found") != std::string_view::npos ||
      message.find("no such file or directory") != std::string_view::npos) {
    return kExitNotFound;
  }
  if (message.find("permission denied") != std::string_view::npos ||
      message.find("is a directory") != std::string_view::npos) {
    return kExitNotExecutable;
  }
  return kExitEngine;
}

SessionOptions sessionFor(Context& context, const std::string& resize_target,
                          const std::string& kill_target, const RunOptions& o) {
  const bool tty = o.tty, input = o.interactive;
  SessionOptions options;
  if (!o.detach_keys.empty()) options.detach_keys = o.detach_keys;
  (void)DetachKeys(options.detach_keys);
  options.terminal = tty;
  options.send_input = input;
  if (tty) {
    options.resize = [&context, resize_target](int rows, int columns) {
      try {
        context.engine().call("POST", fmt::format("{}?h={}&w={}", resize_target, rows, columns));
      } catch (const std::exception&) {
        // Not running yet or any more: the size is sent again with the next change.
      }
    };
  }
  if (!tty && o.sig_proxy && !kill_target.empty()) {
    options.forward_signal = [&context, kill_target](int number) {
      try {
        context.engine().call("POST", fmt::format("{}?signal={}", kill_target, number));
      } catch (const std::exception&) {
        // Gone already.
      }
    };
  }
  return options;
}

void requireTerminal(bool tty, bool interactive) {
  if (tty && interactive && !isatty(STDIN_FILENO)) throw Exit{1, "the input device is not a TTY"};
}

// Waits in the background from before the start on, so that no exit is missed.
class ExitWaiter {
 public:
  ExitWaiter(const EngineClient& engine, const std::string& id, bool removed)
      : thread_([this, &engine, id, removed] {
          try {
            const Response response =
                engine.call("POST", fmt::format("/containers/{}/wait?condition={}", id,
                                                removed ? "removed" : "next-exit"));
            status_ = json::parse(response.body).at("StatusCode").get<int>();
          } catch (const std::exception& error) {
            failure_ = error.what();
          }
        }) {}
  ~ExitWaiter() {
    if (thread_.joinable()) thread_.detach();
  }
  ExitWaiter(const ExitWaiter&) = delete;
  ExitWaiter& operator=(const ExitWaiter&) = delete;
  int status() {
    thread_.join();
    if (!failure_.empty()) throw Exit{kExitEngine, failure_};
    return status_;
  }

 private:
  int status_ = 0;
  std::string failure_;
  std::thread thread_;
};

int runAttached(Context& context, const std::string& id, const RunOptions& o) {
  const EngineClient& engine = context.engine();
  Hijacked connection =
      engine.hijack(fmt::format("/containers/{}/attach?stream=1&stdout=1&stderr=1&stdin={}", id,
                                o.interactive ? 1 : 0),
                    nullptr);
  // On the heap and left behind when the start fails: its thread may still be waiting.
  auto* waiter = new ExitWaiter(engine, id, o.remove);
  engine.call("POST", "/containers/" + id + "/start");
  const std::string base = "/containers/" + id;
  const SessionOptions options = sessionFor(context, base + "/resize", base + "/kill", o);
  if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
  const int status = waiter->status();
  delete waiter;
  return status;
}

int runCommand(Context& context, const RunOptions& o) {
  if (!o.detach) requireTerminal(o.tty, o.interactive);
  std::string id;
  try {
    id = createContainer(context, o);
    if (!o.detach) return runAttached(context, id, o);
    context.engine().call("POST", "/containers/" + id + "/start");
    std::cout << id << "\n";
    return 0;
  } catch (const ApiError& error) {
    if (!id.empty() && o.remove) {
      try {
        context.engine().call("DELETE", "/containers/" + id + "?force=1&v=1");
      } catch (const std::exception&) {
        // The engine removed it itself.
      }
    }
    throw Exit{startFailureStatus(error.what()), error.what()};
  }
}

// --- exec ---

struct ExecOptions {
  bool interactive = false, tty = false, detach = false, privileged = false;
  std::string workdir, user, detach_keys;
  std::vector<std::string> env, env_files, words;
};

int execCommand(Context& context, const ExecOptions& o) {
  if (!o.detach) requireTerminal(o.tty, o.interactive);
  const EngineClient& engine = context.engine();
  RunOptions environment;
  environment.env = o.env;
  environment.env_files = o.env_files;
  json body = {{"Cmd", std::vector<std::string>(o.words.begin() + 1, o.words.end())},
               {"Tty", o.tty},
               {"AttachStdin", o.interactive && !o.detach},
               {"AttachStdout", !o.detach},
               {"AttachStderr", !o.detach},
               {"Env", environmentOf(environment)},
               {"Privileged", o.privileged}};
  if (!o.workdir.empty()) body["WorkingDir"] = o.workdir;
  if (!o.user.empty()) body["User"] = o.user;
  try {
    const std::string id =
        engine.post("/containers/" + urlEncode(o.words[0]) + "/exec", body).at("Id");
    const json start = {{"Detach", o.detach}, {"Tty", o.tty}};
    if (o.detach) {
      engine.post("/exec/" + id + "/start", start);
      return 0;
    }
    Hijacked connection = engine.hijack("/exec/" + id + "/start", &start);
    RunOptions session;
    session.tty = o.tty;
    session.interactive = o.interactive;
    session.detach_keys = o.detach_keys;
    const SessionOptions options = sessionFor(context, "/exec/" + id + "/resize", "", session);
    if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
    return engine.get("/exec/" + id + "/json").at("ExitCode").get<int>();
  } catch (const ApiError& error) {
    const int status = startFailureStatus(error.what());
    throw Exit{status == kExitEngine ? 1 : status, error.what()};
  }
}

// --- start, attach ---

struct AttachOptions {
  bool input = true, sig_proxy = true;
  std::string detach_keys;
};

int attachCommand(Context& context, const std::string& name, const AttachOptions& asked,
                  bool start) {
  const EngineClient& engine = context.engine();
  const json info = engine.get("/containers/" + urlEncode(name) + "/json");
  if (!start && !info["State"]["Running"].get<bool>()) {
    throw Exit{1, "You cannot attach to a stopped container, start it first"};
  }
  RunOptions o;
  o.tty = info["Config"]["Tty"];
  o.interactive = asked.input && info["Config"]["OpenStdin"].get<bool>();
  o.sig_proxy = asked.sig_proxy;
  o.detach_keys = asked.detach_keys;
  requireTerminal(o.tty, o.interactive);
  const std::string id = info["Id"];
  if (start) {
    o.remove = info["HostConfig"].value("AutoRemove", false);
    return runAttached(context, id, o);
  }
  Hijacked connection =
      engine.hijack(fmt::format("/containers/{}/attach?stream=1&stdout=1&stderr=1&stdin={}", id,
                                o.interactive ? 1 : 0),
                    nullptr);
  const std::string base = "/containers/" + id;
  const SessionOptions options = sessionFor(context, base + "/resize", base + "/kill", o);
  if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
  const Response waited = engine.call("POST", base + "/wait");
  return json::parse(waited.body).at("StatusCode").get<int>();
}

}  // namespace

void addRunCommands(CLI::App& app, Context& context) {
  auto run_options = std::make_shared<RunOptions>();
  auto* run = addPrefixCommand(app, "run", "Create and run a new container from an image", 1,
                               run_options->words);
  addCreateOptions(run, *run_options);
  run->add_flag("-d,--detach", run_options->detach,
                "Run in the background and print the container's id");
  addList(run, "-a,--attach", run_options->attach,
          "Accepted for compatibility: all streams are attached");
  run->callback([&context, run_options] { context.exit_code = runCommand(context, *run_options); });

  auto create_options = std::make_shared<RunOptions>();
  auto* create =
      addPrefixCommand(app, "create", "Create a new container", 1, create_options->words);
  addCreateOptions(create, *create_options);
  create->callback([&context, create_options] {
    std::cout << createContainer(context, *create_options) << "\n";
  });

  auto exec_options = std::make_shared<ExecOptions>();
  auto* exec = addPrefixCommand(app, "exec", "Execute a command in a running container", 2,
                                exec_options->words);
  exec->add_flag("-i,--interactive", exec_options->interactive, "Keep standard input open");
  exec->add_flag("-t,--tty", exec_options->tty, "Give the command a terminal");
  exec->add_flag("-d,--detach", exec_options->detach, "Run it in the background");
  exec->add_flag("--privileged", exec_options->privileged, "All capabilities inside the VM");
  exec->add_option("-w,--workdir", exec_options->workdir, "Working directory");
  exec->add_option("-u,--user", exec_options->user, "User: name|uid[:group|gid]");
  addList(exec, "-e,--env", exec_options->env, "Environment variable K=V");
  addList(exec, "--env-file", exec_options->env_files, "Read environment variables from a file");
  exec->add_option("--detach-keys", exec_options->detach_keys,
                   "Keys that detach, ctrl-p,ctrl-q by default");
  exec->callback(
      [&context, exec_options] { context.exit_code = execCommand(context, *exec_options); });

  struct StartOptions {
    bool attach = false, interactive = false;
    std::string detach_keys;
    std::vector<std::string> names;
  };
  auto start_options = std::make_shared<StartOptions>();
  auto* start = app.add_subcommand("start", "Start stopped containers");
  start->add_flag("-a,--attach", start_options->attach, "Attach output and forward signals");
  start->add_flag("-i,--interactive", start_options->interactive, "Attach standard input");
  start->add_option("--detach-keys", start_options->detach_keys,
                    "Keys that detach, ctrl-p,ctrl-q by default");
  start->add_option("CONTAINER", start_options->names)->required();
  start->callback([&context, start_options] {
    if (start_options->attach || start_options->interactive) {
      if (start_options->names.size() > 1)
        throw Exit{1, "you cannot start and attach multiple containers at once"};
      context.exit_code =
          attachCommand(context, start_options->names[0],
                        {start_options->interactive, true, start_options->detach_keys}, true);
      return;
    }
    forEachName(context, start_options->names, [&](const std::string& name) {
      context.engine().call("POST", "/containers/" + urlEncode(name) + "/start");
      std::cout << name << "\n";
    });
  });

  auto attach_name = std::make_shared<std::string>();
  auto attach_options = std::make_shared<AttachOptions>();
  auto* attach = app.add_subcommand("attach", "Attach to a running container");
  attach->add_flag("!--no-stdin", attach_options->input, "Do not attach standard input");
  attach->add_flag("--sig-proxy,!--no-sig-proxy", attach_options->sig_proxy,
                   "Pass signals on to the process");
  attach->add_option("--detach-keys", attach_options->detach_keys,
                     "Keys that detach, ctrl-p,ctrl-q by default");
  attach->add_option("CONTAINER", *attach_name)->required();
  attach->callback([&context, attach_name, attach_options] {
    context.exit_code = attachCommand(context, *attach_name, *attach_options, false);
  });
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

}  // namespace hull::cli
