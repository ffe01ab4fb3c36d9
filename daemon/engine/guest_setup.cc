// What the guest is told about a container.
#include <algorithm>

#include "base/error.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/seccomp_profile.h"
#include "daemon/vm/guest_files.h"

namespace hull::engine {

namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;
// Beside the container's own limit: the guest kernel's code and tables, hull-init, page structures.
constexpr uint64_t kGuestOverheadMib = 64;
constexpr uint64_t kPageTableShare = 32;

std::string namesOf(const ContainerSpec& spec, const std::string& hostname) {
  return spec.domainname.empty() ? hostname : hostname + "." + spec.domainname + " " + hostname;
}

// `forwarder`: the engine's DNS server, empty without a network.
Resolver resolverOf(const ContainerSpec& spec, const std::string& forwarder) {
  Resolver resolver{spec.dns, spec.dns_search, spec.dns_options};
  if (resolver.servers.empty() && !forwarder.empty()) resolver.servers = {forwarder};
  return resolver;
}

}  // namespace

uint64_t vmMemoryMib(uint64_t limit_bytes, uint64_t default_bytes) {
  if (limit_bytes == 0) return default_bytes / kMib;
  const uint64_t limit_mib = (limit_bytes + kMib - 1) / kMib;
  return limit_mib + kGuestOverheadMib + limit_mib / kPageTableShare;
}

guest::CreateContainer createMessage(const ContainerSpec& spec, const std::string& hostname,
                                     const std::string& address, const std::string& gateway,
                                     bool writable_disk) {
  guest::CreateContainer message;
  message.root_disk = Vm::kRootDisk;
  if (writable_disk) message.writable_disk = Vm::kWritableDisk;
  message.read_only_root = spec.read_only_root;
  message.hostname = hostname;
  message.hosts = hostsFile(namesOf(spec, hostname), address, gateway, spec.extra_hosts);
  message.resolv_conf = resolvConf(resolverOf(spec, gateway));
  for (const auto& [path, options] : spec.mounts.tmpfs) {
    message.mounts.push_back({guest::Mount::Kind::kTmpfs, "", path, options});
  }
  message.shm_bytes = spec.shm_bytes;
  message.masked_paths = spec.masked_paths;
  message.read_only_paths = spec.read_only_paths;
  message.pids_limit = spec.pids_limit;
  message.memory_bytes = spec.memory_bytes;
  message.sysctls = spec.guest.sysctls;
  message.init = spec.guest.init;
  message.privileged = spec.privileged;
  message.devices = spec.guest.devices;
  message.device_rules = spec.guest.device_rules;
  return message;
}

guest::SetLimits limitsMessage(const ContainerSpec& spec) {
  guest::SetLimits message;
  message.pids = spec.pids_limit;
  message.memory_bytes = spec.memory_bytes;
  message.memory_low_bytes = spec.limits.memory_low_bytes;
  message.cpu_quota_us = spec.limits.cpu_quota_us;
  message.cpu_period_us = spec.limits.cpu_period_us;
  return message;
}

guest::StartProcess mainProcess(const ContainerSpec& spec, const std::string& hostname) {
  guest::StartProcess message;
  message.process = guest::kMainProcess;
  message.arguments = spec.arguments;
  message.environment = processEnvironment(spec.env, spec.tty, hostname);
  message.working_directory = spec.working_dir.empty() ? "/" : spec.working_dir;
  message.user = spec.user;
  message.additional_groups = spec.group_add;
  message.capabilities = spec.capabilities;
  message.no_new_privileges = spec.no_new_privileges;
  message.rlimits = spec.rlimits;
  message.terminal = spec.tty;
  message.open_stdin = spec.open_stdin;
  message.seccomp = seccompOf(spec);
  message.oom_score_adj = spec.guest.oom_score_adj;
  return message;
}

std::string seccompOf(const ContainerSpec& spec) {
  if (spec.guest.seccomp_profile.empty()) return {};
  return compileSeccomp(spec.guest.seccomp_profile, spec.capabilities);
}

StartFailure startFailure(const Error& error, const std::string& program) {
  std::string message = error.what();
  const auto has = [&](const char* text) { return message.find(text) != std::string::npos; };
  if (error.kind() == ErrorKind::kNotFound) {
    if (!has("executable file not found") && !has("no such file or directory")) {
      message = "exec: \"" + program + "\": executable file not found in $PATH: " + message;
    }
    return {message, 127};
  }
  if (error.kind() == ErrorKind::kForbidden) {
    if (!has("permission denied") && !has("is a directory")) {
      message = "exec: \"" + program + "\": permission denied: " + message;
    }
    return {message, 126};
  }
  return {message, 128};
}

}  // namespace hull::engine
