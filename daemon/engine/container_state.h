// A container's state and which step may follow which, with Docker's words for those that may not.
// Pure values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/network/network.h"

namespace hull::engine {

enum class Status { kCreated, kRunning, kPaused, kRestarting, kRemoving, kExited, kDead };
std::string_view toString(Status status);   // "created", …
Status parseStatus(std::string_view text);  // throws kInvalidArgument

// A container's place in one network.
struct Endpoint {
  std::string network;  // NetworkSpec::id
  // As asked:
  std::vector<std::string> aliases;
  std::string wanted_address, wanted_address6, wanted_mac;
  // While it runs:
  std::string id;
  std::string address, gateway, address6, gateway6, mac;
  uint8_t prefix_length = 0, prefix_length6 = 0;
};

enum class HealthStatus { kNone, kStarting, kHealthy, kUnhealthy };
std::string_view toString(HealthStatus status);  // "none", "starting", …

struct HealthProbe {
  int64_t start_ns = 0;  // since 1970
  int64_t end_ns = 0;
  int exit_code = 0;
  std::string output;
};

struct HealthState {
  HealthStatus status = HealthStatus::kNone;  // none: there is no check
  int64_t failing_streak = 0;
  std::vector<HealthProbe> probes;  // the last ones; in memory only
};

struct ContainerState {
  Status status = Status::kCreated;
  int exit_code = 0;
  bool out_of_memory = false;
  std::string error;             // why the last start failed
  int64_t started_ns = 0;        // since 1970; 0: never
  int64_t finished_ns = 0;       //
  int64_t restarts = 0;          // by its policy, since it was started by hand
  int64_t quick_ends = 0;        // in a row: what the restart's delay grows with
  bool stopped_by_user = false;  // no restart policy brings it back
  // While it runs:
  int64_t pid = 0;  // of the VMM
  uint64_t vm_memory_mib = 0;
  uint32_t vm_vcpus = 0;
  std::vector<PortMapping> ports;
  // Connecting and disconnecting change them at any time.
  std::vector<Endpoint> endpoints;
  HealthState health;

  bool running() const { return status == Status::kRunning || status == Status::kPaused; }
};

std::string toJson(const ContainerState& state);
ContainerState parseState(std::string_view json);

enum class Step { kStart, kPause, kUnpause, kKill, kExec, kRemove };
// Throws kConflict naming the container when `step` cannot follow. Starting a running and stopping
// a stopped container are answered with 304 by the API and not asked here.
void checkStep(Step step, Status status, const std::string& id);

}  // namespace hull::engine
