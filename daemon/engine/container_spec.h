// What a container shall be: the documents of a create request completed with the image's defaults
// (stored, and shown by inspect exactly so), and their typed view, which is derived from them and
// never stored. What Hull cannot do and would change the meaning is refused with a sentence; what
// makes no difference in a virtual machine of one's own is accepted. Pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/engine/mount_spec.h"
#include "daemon/engine/spec_options.h"
#include "guest-init/protocol/protocol.h"
#include "image/types/config.h"

namespace hull::engine {

inline constexpr uint64_t kMinMemoryBytes = uint64_t{6} << 20;  // Docker's
inline constexpr size_t kMaxPortBindings = 1024;

struct PortBinding {
  uint16_t guest_port = 0;
  std::string protocol;  // "tcp", "udp"
  std::string host_address;
  uint16_t host_port = 0;       // 0: any free one
  uint16_t host_port_last = 0;  // not 0: any free one from host_port to this
  bool operator==(const PortBinding&) const = default;
};

enum class RestartPolicy { kNo, kAlways, kUnlessStopped, kOnFailure };

struct ContainerDocuments {  // JSON objects
  std::string config;        // Config of inspect
  std::string host_config;   // HostConfig
  std::string endpoints;     // NetworkingConfig.EndpointsConfig
};

struct ContainerSpec {
  std::vector<std::string> arguments;  // entrypoint, then command
  std::vector<std::string> env;
  std::string working_dir;
  std::string user;
  std::string hostname;  // empty: from the id
  std::string domainname;
  std::string stop_signal;
  std::optional<int64_t> stop_timeout_s;
  bool tty = false;
  bool open_stdin = false;
  bool stdin_once = false;
  std::map<std::string, std::string> labels;
  std::vector<std::string> exposed_ports;  // "80/tcp"

  uint64_t memory_bytes = 0;  // 0: default
  uint32_t vcpus = 0;         // 0: default
  bool network = true;        // false: none
  std::string network_mode;   // "bridge", or the name or id of a network of the user's
  std::string joins;          // the container in whose machine and network it runs; empty: none
  std::string mac_address;    // of the first card; empty: any
  std::vector<PortBinding> ports;
  bool auto_remove = false;
  RestartPolicy restart = RestartPolicy::kNo;
  int64_t restart_attempts = 0;  // kOnFailure: 0 is without end
  bool read_only_root = false;
  MountRequests mounts;
  uint64_t shm_bytes = 64 << 20;
  uint64_t capabilities = 0;
  bool privileged = false;
  bool no_new_privileges = false;
  std::vector<guest::Rlimit> rlimits;
  uint64_t pids_limit = 0;
  std::vector<std::string> extra_hosts;  // "name:address"
  std::vector<std::string> dns, dns_search, dns_options;
  std::vector<std::string> group_add;
  std::vector<std::string> masked_paths, read_only_paths;
  HealthSpec health;
  LogSpec log;
  LimitSpec limits;
  GuestSpec guest;
};

// From the body of POST /containers/create and the image it names. Throws kInvalidArgument,
// kNotSupported with what to do instead.
ContainerDocuments completeDocuments(std::string_view create_body,
                                     const image::RuntimeConfig& image_config);
std::string imageOf(std::string_view create_body);             // Config.Image as asked
inline constexpr std::string_view kJoinPrefix = "container:";  // of a network mode
// Throws kInvalidArgument in Docker's words for what belongs to the container that is joined.
void checkJoining(std::string_view create_body, const ContainerDocuments& documents);
// The container whose network the documents name becomes this one.
void setJoined(ContainerDocuments& documents, const std::string& id);
ContainerSpec specOf(const ContainerDocuments& documents);
// Of options that were accepted and do nothing.
std::vector<std::string> warningsOf(const ContainerDocuments& documents);

// The environment a process starts with: Docker's defaults, then `env`; "NAME" alone removes.
std::vector<std::string> processEnvironment(const std::vector<std::string>& env, bool tty,
                                            const std::string& hostname);
// `mine` wins over `defaults`.
std::vector<std::string> mergeEnvironment(const std::vector<std::string>& mine,
                                          const std::vector<std::string>& defaults);

// "SIGTERM", "term", "15", "SIGRTMIN+3"; throws kInvalidArgument.
uint32_t signalNumber(std::string_view name);
// Bits of linux/capability.h. Throws kInvalidArgument on an unknown name.
uint64_t capabilitySet(const std::vector<std::string>& add, const std::vector<std::string>& drop,
                       bool privileged);

}  // namespace hull::engine
