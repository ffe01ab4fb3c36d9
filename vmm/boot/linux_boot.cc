#include "vmm/boot/linux_boot.h"

#include <asm/bootparam.h>
#include <fmt/format.h>
#include <linux/kvm.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/lists.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

constexpr uint32_t kSetupDeviceTree = 2;  // SETUP_DTB
constexpr uint32_t kSetupRngSeed = 9;     // SETUP_RNG_SEED, newer than some headers
constexpr size_t kRngSeedBytes = 64;
constexpr uint32_t kE820Ram = 1;

struct SetupDataHeader {
  uint64_t next;
  uint32_t type;
  uint32_t bytes;
};

template <typename T>
void put(GuestMemory& memory, GuestAddress address, std::span<const T> from) {
  if (!memory.write(address, std::as_bytes(from))) {
    throw Error(ErrorKind::kInternal, fmt::format("write boot data at {:#x}: no memory", address));
  }
}

void putSetupData(GuestMemory& memory, GuestAddress address, GuestAddress next, uint32_t type,
                  std::span<const std::byte> data) {
  const SetupDataHeader header{next, type, static_cast<uint32_t>(data.size())};
  put(memory, address, std::span<const SetupDataHeader>(&header, 1));
  put(memory, address + sizeof header, data);
}

void addMemoryMap(const GuestMemory& memory, boot_params& params) {
  const auto add = [&](GuestAddress start, GuestAddress end) {
    params.e820_table[params.e820_entries++] = {start, end - start, kE820Ram};
  };
  add(0, layout::kLowRamEnd);
  add(layout::kHighRamStart, memory.lowEnd());
  for (const auto& range : memory.ranges().subspan(1)) add(range.start, range.start + range.bytes);
}

// Identity map of the first GiB with 2 MiB pages; the kernel makes its own tables at once.
void writePageTables(GuestMemory& memory) {
  constexpr uint64_t kPresentWritable = 3;
  constexpr uint64_t kLargePage = 0x80;
  constexpr uint64_t kLargePageBytes = 2 * layout::kMiB;
  const GuestAddress pdpt = layout::kPageTables + layout::kPageBytes;
  const GuestAddress directory = pdpt + layout::kPageBytes;
  const uint64_t pml4_entry = pdpt | kPresentWritable;
  const uint64_t pdpt_entry = directory | kPresentWritable;
  std::array<uint64_t, 512> pages;
  for (size_t i = 0; i < pages.size(); ++i) {
    pages[i] = i * kLargePageBytes | kLargePage | kPresentWritable;
  }
  put(memory, layout::kPageTables, std::span(&pml4_entry, 1));
  put(memory, pdpt, std::span(&pdpt_entry, 1));
  put<uint64_t>(memory, directory, pages);
}

// boot.rst, 64-bit boot protocol: __BOOT_CS 0x10 execute/read, __BOOT_DS 0x18 read/write, flat.
constexpr std::array<uint64_t, 4> kGdtEntries{0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;

kvm_segment segment(uint16_t selector, uint8_t type, bool code) {
  kvm_segment result{};
  result.limit = UINT32_MAX;
  result.selector = selector;
  result.type = type;
  result.present = 1;
  result.s = 1;
  result.g = 1;
  result.l = code ? 1 : 0;
  result.db = code ? 0 : 1;
  return result;
}

void setModelSpecificRegisters(int vcpu_fd) {
  constexpr uint32_t kMiscEnable = 0x1a0;
  constexpr uint64_t kFastStrings = 1;
  constexpr uint32_t kMtrrDefaultType = 0x2ff;
  constexpr uint64_t kMtrrWriteBackEnabled = 0x806;
  const std::array<kvm_msr_entry, 2> entries{
      {{kMiscEnable, 0, kFastStrings}, {kMtrrDefaultType, 0, kMtrrWriteBackEnabled}}};
  KvmList<kvm_msr_entry> list(entries);
  kvmIoctl(vcpu_fd, kKvmSetMsrs, list.data(), "set model-specific registers");
}

}  // namespace

void writeBootData(GuestMemory& memory, const BootImage& image) {
  if (image.command_line.size() >= layout::kCommandLineMaxBytes) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("command line: {} bytes are more than {}", image.command_line.size(),
                            layout::kCommandLineMaxBytes - 1));
  }
  boot_params params{};
  constexpr uint8_t kUndefinedLoader = 0xff;
  params.hdr.type_of_loader = kUndefinedLoader;
  params.hdr.boot_flag = 0xaa55;
  params.hdr.header = 0x53726448;  // "HdrS"
  params.hdr.version = 0x20f;
  params.hdr.kernel_alignment = 0x1000000;
  params.hdr.cmd_line_ptr = layout::kCommandLine;
  params.hdr.cmdline_size = static_cast<uint32_t>(image.command_line.size() + 1);
  params.hdr.ramdisk_image = static_cast<uint32_t>(image.initrd.address);
  params.hdr.ramdisk_size = static_cast<uint32_t>(image.initrd.bytes);
  params.hdr.setup_data = layout::kDeviceTree;
  addMemoryMap(memory, params);
  put(memory, layout::kBootParams, std::span<const boot_params>(&params, 1));
  put(memory, layout::kCommandLine,
      std::span<const char>(image.command_line.c_str(), image.command_line.size() + 1));

  std::array<std::byte, kRngSeedBytes> seed;
  fillRandom(seed);
  putSetupData(memory, layout::kDeviceTree, layout::kRngSeed, kSetupDeviceTree, image.device_tree);
  putSetupData(memory, layout::kRngSeed, 0, kSetupRngSeed, seed);
  writePageTables(memory);
  put<uint64_t>(memory, layout::kGdt, kGdtEntries);
}

void setBootRegisters(int vcpu_fd, GuestAddress entry) {
  constexpr uint8_t kCodeType = 11;  // execute, read, accessed
  constexpr uint8_t kDataType = 3;   // read, write, accessed
  constexpr uint64_t kCr0ProtectedPaging = 0x80000001;
  constexpr uint64_t kCr4PhysicalExtension = 0x20;
  constexpr uint64_t kEferLongModeActive = 0x500;
  kvm_sregs special{};
  kvmIoctl(vcpu_fd, KVM_GET_SREGS, &special, "read the special registers");
  special.gdt.base = layout::kGdt;
  special.gdt.limit = sizeof kGdtEntries - 1;
  special.idt = {};
  special.cs = segment(kCodeSelector, kCodeType, true);
  special.ds = special.es = special.fs = special.gs = special.ss =
      segment(kDataSelector, kDataType, false);
  special.cr0 = kCr0ProtectedPaging;
  special.cr3 = layout::kPageTables;
  special.cr4 = kCr4PhysicalExtension;
  special.efer = kEferLongModeActive;
  kvmIoctl(vcpu_fd, KVM_SET_SREGS, &special, "set the special registers");

  kvm_regs general{};
  general.rip = entry;
  general.rsi = layout::kBootParams;
  general.rsp = general.rbp = layout::kBootStackTop;
  general.rflags = 2;
  kvmIoctl(vcpu_fd, KVM_SET_REGS, &general, "set the registers");
  setModelSpecificRegisters(vcpu_fd);
}

}  // namespace hull::vmm
