// A container's place in the machine of another one (`--network container:ID`): a Vm to whoever
// runs the container, although the machine is the other's. It ends with that machine; its own end
// removes the container from the guest and takes its disks back, and the machine runs on. Shares
// the machine; otherwise as vm.h.
//
// Its folder is the container's VM folder as with a machine of its own, so that either can be
// started on the same writable.ext4. The file "seat" in it says where its disks are in which
// container's machine, for an engine that finds both running.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/vm/vm.h"

namespace hull::engine {

struct SeatSpec {
  std::string directory;
  std::string container;
  std::string host;  // the container whose machine it is
  image::RootDisk root;
  uint64_t writable_bytes = uint64_t{10} << 30;
  std::vector<std::string> extra_disks;
};

struct Seat {
  std::unique_ptr<Vm> vm;
  // The guest's block devices: root, writable disk, then the extra ones. Not of an adopted one.
  std::vector<std::string> devices;
};

// Throws with nothing left in the machine. `template_disk`: VmResources's.
Seat takeSeat(const std::string& template_disk, std::shared_ptr<Vm> machine, const SeatSpec& spec);

// What an earlier engine process left: in whose machine, if there is a seat.
std::optional<std::string> seatHost(const std::string& directory);
// Null when it was in another machine of that container.
std::unique_ptr<Vm> adoptSeat(std::shared_ptr<Vm> machine, const std::string& directory,
                              const std::string& container);
void forgetSeat(const std::string& directory);  // its machine has ended

}  // namespace hull::engine
