// The options of `create` and `run`, declared.
#include "cli/commands/create_options.h"

#include <CLI/CLI.hpp>

#include "cli/commands/context.h"

namespace hull::cli {

namespace {

void addHealthOptions(CLI::App* command, CreateOptions::Health& health) {
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

void addLimitOptions(CLI::App* command, CreateOptions& o) {
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

void addHostOptions(CLI::App* command, CreateOptions& o) {
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

}  // namespace

void addCreateOptions(CLI::App* command, CreateOptions& o) {
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
  addList(command, "--network,--net", o.networks,
          "Network, or container:NAME to join its machine; several times: several networks");
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

}  // namespace hull::cli
