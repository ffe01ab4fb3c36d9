// Every virtio device as the hostile grid attacks it. A new device joins all of the grid's tests
// with one line in deviceCases() and a Subject of its own.
// Test code; one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vmm/hostile/bench.h"

namespace hull::vmm::virtio::hostile {

struct QueueCase {
  std::string name;
  // Whether stir() makes the device take a chain from this queue. What a device never looks at
  // cannot break it.
  bool looked_at = true;
};

struct DeviceCase {
  std::string name;
  std::vector<QueueCase> queues;
  // Never null; Subject::missing() says what this host lacks for it.
  std::unique_ptr<Subject> (*make)();
};

const std::vector<DeviceCase>& deviceCases();

}  // namespace hull::vmm::virtio::hostile
