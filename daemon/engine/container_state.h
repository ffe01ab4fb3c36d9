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
  std::string address;
  std::vector<PortMapping> ports;

  bool running() const { return status == Status::kRunning || status == Status::kPaused; }
};

std::string toJson(const ContainerState& state);
ContainerState parseState(std::string_view json);

enum class Step { kStart, kPause, kUnpause, kKill, kExec, kRemove };
// Throws kConflict naming the container when `step` cannot follow. Starting a running and stopping
// a stopped container are answered with 304 by the API and not asked here.
void checkStep(Step step, Status status, const std::string& id);

}  // namespace hull::engine
