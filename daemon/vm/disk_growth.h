// What a machine's writable disk grows by when another container joins it: where each of that one's
// disks comes to lie, and the commands to the VMM. Any thread; only growthsOf opens files.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.h"
#include "daemon/vm/vm.h"
#include "vmm/config/vm_config.h"

namespace hull::engine {

inline constexpr uint64_t kPartAlignment = uint64_t{1} << 20;

// Behind the disk's first `disk_bytes`, one after the other.
Vm::AddedDisks placesOf(const std::vector<AddedDisk>& disks, uint64_t disk_bytes);

struct Growth {
  vmm::DiskGrowth change;
  std::vector<Fd> files;  // of its segments
};
// A disk that comes to lie at `offset` of what `all` says.
std::vector<Growth> growthsOf(const AddedDisk& disk, uint64_t offset, const Vm::AddedDisks& all);
std::vector<int> numbersOf(const std::vector<Fd>& files);

}  // namespace hull::engine
