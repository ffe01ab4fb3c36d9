// Where things are in guest-physical memory. Constants only; one table, so that nothing overlaps by
// accident: kernel, initrd, setup data, command line and page tables stay clear of each other.
#pragma once

#include <cstdint>

namespace hull::vmm::layout {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kPageBytes = 4096;

// Below 1 MiB: what the 64-bit entry needs.
inline constexpr uint64_t kGdt = 0x500;
inline constexpr uint64_t kBootParams = 0x7000;  // "zero page"
inline constexpr uint64_t kBootStackTop = 0x8ff0;
inline constexpr uint64_t kPageTables = 0x9000;  // PML4, PDPT, one page directory: 3 pages
inline constexpr uint64_t kCommandLine = 0x20000;
inline constexpr uint64_t kCommandLineMaxBytes = 2048;  // the kernel's COMMAND_LINE_SIZE on x86
inline constexpr uint64_t kDeviceTree = 0x30000;        // struct setup_data, SETUP_DTB
inline constexpr uint64_t kDeviceTreeMaxBytes = 64 * kKiB;
inline constexpr uint64_t kRngSeed = 0x40000;  // struct setup_data, SETUP_RNG_SEED
inline constexpr uint64_t kLowRamEnd = 0x9fc00;

inline constexpr uint64_t kHighRamStart = 1 * kMiB;  // the kernel may be anywhere from here on
inline constexpr uint64_t kInitrdMaxEnd = 2 * kGiB;  // boot protocol: initrd_addr_max

// The hole for devices: [3 GiB, 4 GiB). Memory beyond 3 GiB goes on at 4 GiB.
inline constexpr uint64_t kGapStart = 3 * kGiB;
inline constexpr uint64_t kGapEnd = 4 * kGiB;

// Platform registers and virtio-mmio windows, all inside the hole.
inline constexpr uint64_t kPowerBase = 0xd0000000;
inline constexpr uint64_t kPowerBytes = 0x1000;
inline constexpr uint64_t kPvpanicBase = 0xd0001000;
inline constexpr uint64_t kPvpanicBytes = 2;
inline constexpr uint64_t kVirtioBase = 0xd0100000;
inline constexpr uint64_t kVirtioStride = 0x1000;
inline constexpr uint64_t kVirtioBytes = 0x200;

inline constexpr uint64_t kIoapicBase = 0xfec00000;
inline constexpr uint64_t kIoapicBytes = 0x1000;
inline constexpr uint64_t kLocalApicBase = 0xfee00000;
inline constexpr uint64_t kLocalApicBytes = 0x1000;
// Intel without unrestricted guest: three pages for the TSS, one for the identity map.
inline constexpr uint64_t kIdentityMap = 0xfffbc000;
inline constexpr uint64_t kTss = 0xfffbd000;

inline constexpr uint32_t kIoapicPins = 24;
inline constexpr uint32_t kMaxVirtioDevices = 22;
// Pins 0 and 2 belong to the timer. 1, 3 and 4 are a PC's keyboard and serial ports: of those only
// ttyS0's (4) may be there, so they are the last to be given out, and 4 the very last.
constexpr uint32_t gsiOfSlot(uint32_t slot) {
  constexpr uint32_t kFirstPin = 5;
  constexpr uint32_t kLastResorts[] = {3, 1, 4};
  constexpr uint32_t kPlainPins = kIoapicPins - kFirstPin;
  return slot < kPlainPins ? kFirstPin + slot : kLastResorts[(slot - kPlainPins) % 3];
}

}  // namespace hull::vmm::layout
