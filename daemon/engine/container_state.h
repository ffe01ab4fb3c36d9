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

struct ContainerState {
  Status status = Status::kCreated;
  int exit_code = 0;
  bool out_of_memory = false;
  std::string error;        // why the last start failed
  int64_t started_ns = 0;   // since 1970; 0: never
  int64_t finished_ns = 0;  //
  int64_t restarts = 0;
  bool stopped_by_user = false;  // no restart policy brings it back
  // While it runs:
  int64_t pid = 0;  // of the VMM
  std::vector<PortMapping> ports;
  // Connecting and disconnecting change them at any time.
  std::vector<Endpoint> endpoints;

  bool running() const { return status == Status::kRunning || status == Status::kPaused; }
};

std::string toJson(const ContainerState& state);
ContainerState parseState(std::string_view json);

enum class Step { kStart, kPause, kUnpause, kKill, kExec, kRemove };
// Throws kConflict naming the container when `step` cannot follow. Starting a running and stopping
// a stopped container are answered with 304 by the API and not asked here.
void checkStep(Step step, Status status, const std::string& id);

}  // namespace hull::engine
