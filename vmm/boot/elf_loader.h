// Loads an uncompressed ELF vmlinux into guest memory. The file is given by the engine, but it may
// be damaged or made by somebody else: every header is copied and checked before use.
// Control plane, main thread; throws hull::Error(kCorrupt) naming what is wrong.
#pragma once

#include <cstdint>

#include "vmm/memory/guest_memory.h"

namespace hull::vmm {

inline constexpr uint16_t kMaxProgramHeaders = 64;

struct LoadedKernel {
  GuestAddress entry = 0;  // 64-bit, physical
  GuestAddress end = 0;    // first byte behind the kernel, its bss included
};

LoadedKernel loadKernel(int fd, GuestMemory& memory);

struct LoadedInitrd {
  GuestAddress address = 0;
  uint64_t bytes = 0;
};

// As high as the boot protocol allows, page-aligned, above `kernel_end`.
LoadedInitrd loadInitrd(int fd, GuestMemory& memory, GuestAddress kernel_end);

}  // namespace hull::vmm
