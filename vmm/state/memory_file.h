// The file a VM's memory is saved in: all of it from byte 0 on, in the order of its ranges, pages
// of zeros as holes; behind it one page that says which saved state (SaveId) it belongs to. A
// restored VM maps the file privately: pages come when they are touched, changes stay in the
// process. So the file must stay as it is, and as long as it is, while VMs restored from it run.
//
// What is in it was the guest's all along: any contents are as good as others.
//
// Device thread (save) or main thread (restore). All throw hull::Error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmm/memory/guest_memory.h"

namespace hull::vmm {

// Random, one for each save: a state and a memory that do not belong together would be a guest that
// crashes in strange ways.
using SaveId = std::array<std::byte, 16>;

// Replaces what is in the file; gives how many bytes of memory were not zeros (whole pages).
uint64_t writeMemoryFile(int fd, const GuestMemory& memory, const SaveId& id);

// `memory` must not have been touched; `fd` may be closed afterwards.
void mapMemoryFile(int fd, GuestMemory& memory, const SaveId& id);

}  // namespace hull::vmm
