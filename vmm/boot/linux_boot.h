// The Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst): boot_params with memory map,
// command line, initrd and setup_data, page tables and GDT, and the first vCPU's registers.
// Control plane, main thread; throws hull::Error.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "vmm/boot/elf_loader.h"
#include "vmm/memory/guest_memory.h"

namespace hull::vmm {

struct BootImage {
  LoadedKernel kernel;
  LoadedInitrd initrd;  // 0 bytes: none
  std::string command_line;
  std::span<const std::byte> device_tree;
};

// Everything in memory that the kernel expects. Draws the guest's first random seed.
void writeBootData(GuestMemory& memory, const BootImage& image);

// vCPU 0: long mode, flat segments, rip at the kernel's entry, rsi at boot_params.
void setBootRegisters(int vcpu_fd, GuestAddress entry);

}  // namespace hull::vmm
