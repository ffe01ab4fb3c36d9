// Test doubles for what needs a hypervisor: a Vm whose "guest" starts processes of this host, and a
// Network that hands out addresses of nothing. Everything above them (attach, exec, logs, wait, cp,
// restarts of the engine) runs as with real machines, against real clients. A container's root is
// the folder "rootfs" in the VM's: processes start there, cp and export read and write there; a
// process otherwise sees this host. For tests only.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "daemon/engine/engine_parts.h"

namespace hull::engine::testing {

// The machines of one test: outlives engines, so that a second engine can adopt what the first
// left.
class LocalHost {
 public:
  LocalHost();
  ~LocalHost();
  void usedBy(EngineParts& parts);
  // The machine in `directory` ends without a word, as if its VMM was killed.
  void crash(const std::string& directory);
  // What the machine in `directory` was told last.
  DiskLimits diskLimits(const std::string& directory);
  // How many containers that joined it have disks in the machine in `directory`.
  size_t addedDisks(const std::string& directory);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

std::shared_ptr<Network> makeLocalNetwork();

// "debian:latest" and "busybox:latest": one small layer, PATH, Cmd sh.
void addTestImages(image::ImageStore& images);

}  // namespace hull::engine::testing
