// What a container that runs beside another one has from elsewhere: its disks, which are parts of a
// disk of the machine, and the container whose name files it shares. Made by PrepareSeat, kept by
// the container. The event loop's thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "guest-init/protocol/protocol.h"
#include "guest-init/system/loop.h"

namespace hull::guest {

// How long a disk may take to grow to what the host has promised, and how often it is looked at.
inline constexpr std::chrono::milliseconds kGrowthPatience{10'000};
inline constexpr std::chrono::milliseconds kGrowthPause{1};

class Seat {
 public:
  Seat() = default;
  // Throws kInvalidArgument for parts that make no sense.
  explicit Seat(PrepareSeat request);

  bool diskIsLargeEnough() const;
  void attach();                                             // throws with nothing attached
  const std::string& host() const { return request_.host; }  // empty: a container of its own
  SeatPrepared reply() const;

 private:
  PrepareSeat request_;
  std::vector<LoopDevice> devices_;
};

}  // namespace hull::guest
