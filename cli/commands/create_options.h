// What `create` and `run` can be told: the options, and the request they make of the engine
// (POST /containers/create). The request is a pure function of the options, this process's
// environment and the files that options name.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/commands/device_rates.h"

namespace CLI {
class App;
}

namespace hull::cli {

// Docker's exit statuses of `run` when the container's process is not what ended.
inline constexpr int kExitEngine = 125;
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;

struct CreateOptions {
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

void addCreateOptions(CLI::App* command, CreateOptions& options);

// Throws Exit for what makes no sense.
nlohmann::json createBody(const CreateOptions& options);

// ["K=V",…] of --env-file and -e. "K" alone takes the value of this process's environment. Throws
// Exit.
nlohmann::json environmentOf(const std::vector<std::string>& files,
                             const std::vector<std::string>& items);

}  // namespace hull::cli
