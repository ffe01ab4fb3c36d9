#include <asm/bootparam.h>
#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libfdt.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/boot/device_tree.h"
#include "vmm/boot/elf_loader.h"
#include "vmm/boot/linux_boot.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {
namespace {

using layout::kMiB;
using testing::HasSubstr;

// A kernel of one segment, 64 bytes in the file, a page in memory, at 1 MiB.
struct FakeKernel {
  Elf64_Ehdr header{};
  std::array<Elf64_Phdr, 2> segments{};
  std::array<char, 64> code{};

  FakeKernel() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = kMiB;
    header.e_phoff = offsetof(FakeKernel, segments);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    segments[0].p_type = PT_LOAD;
    segments[0].p_offset = offsetof(FakeKernel, code);
    segments[0].p_paddr = kMiB;
    segments[0].p_filesz = code.size();
    segments[0].p_memsz = 4096;
    code.fill('k');
  }
};

Fd fileOf(const FakeKernel& kernel) {
  Fd file = makeMemfd("kernel");
  writeFull(file.get(), std::as_bytes(std::span(&kernel, 1)));
  return file;
}

std::string errorOf(const std::function<void(FakeKernel&)>& change) {
  FakeKernel kernel;
  change(kernel);
  const Fd file = fileOf(kernel);
  GuestMemory memory(4 * kMiB);
  try {
    loadKernel(file.get(), memory);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    return error.what();
  }
  return "loaded";
}

TEST(LoadKernel, PutsSegmentsInTheirPlace) {
  const Fd file = fileOf(FakeKernel());
  GuestMemory memory(4 * kMiB);
  const LoadedKernel kernel = loadKernel(file.get(), memory);
  EXPECT_EQ(kernel.entry, kMiB);
  EXPECT_EQ(kernel.end, kMiB + 4096);
  EXPECT_EQ(memory.read<char>(kMiB + 63), 'k');
  EXPECT_EQ(memory.read<char>(kMiB + 64), '\0');
}

TEST(LoadKernel, RefusesWhatIsNoKernel) {
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_ident[0] = 'M'; }), HasSubstr("not an ELF file"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_machine = EM_AARCH64; }), HasSubstr("x86"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_type = ET_DYN; }), HasSubstr("x86"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_ident[EI_CLASS] = ELFCLASS32; }), HasSubstr("x86"));
}

TEST(LoadKernel, ChecksEveryHeaderField) {
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_phnum = 0; }), HasSubstr("program headers"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_phnum = 65535; }), HasSubstr("program headers"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_phentsize = 8; }), HasSubstr("program headers"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_phoff = UINT64_MAX - 8; }), HasSubstr("cut off"));
  EXPECT_THAT(errorOf([](auto& k) { k.header.e_entry = 0; }), HasSubstr("entry point"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_filesz = 8192; }), HasSubstr("larger"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_offset = uint64_t{1} << 63; }),
              HasSubstr("cut off"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_offset = UINT64_MAX; }), HasSubstr("cut off"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_memsz = UINT64_MAX; }), HasSubstr("not fit"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_paddr = UINT64_MAX - 63; }),
              HasSubstr("not fit"));
  EXPECT_THAT(errorOf([](auto& k) { k.segments[0].p_paddr = 4096; }), HasSubstr("below 1 MiB"));
  EXPECT_THAT(errorOf([](auto& k) {
                k.segments[1] = k.segments[0];
                k.segments[1].p_paddr += 100;
                k.header.e_phnum = 2;
              }),
              HasSubstr("overlap"));
}

TEST(LoadInitrd, GoesToTheTopOfLowMemory) {
  const Fd file = makeMemfd("initrd");
  writeFull(file.get(), std::string_view("initrd"));
  GuestMemory memory(4 * kMiB);
  const LoadedInitrd initrd = loadInitrd(file.get(), memory, 2 * kMiB);
  EXPECT_EQ(initrd.address, 4 * kMiB - 4096);
  EXPECT_EQ(initrd.bytes, 6u);
  EXPECT_EQ(memory.read<char>(initrd.address), 'i');
  EXPECT_THROW(loadInitrd(file.get(), memory, 4 * kMiB - 1), Error);
  const Fd empty = makeMemfd("empty");
  EXPECT_THROW(loadInitrd(empty.get(), memory, 0), Error);
}

TEST(DeviceTree, DescribesTheMachine) {
  const auto blob = buildDeviceTree(3, {{0xd0100000, 5}, {0xd0101000, 6}});
  ASSERT_EQ(fdt_check_full(blob.data(), blob.size()), 0);
  const void* tree = blob.data();
  for (const char* cpu : {"/cpus/cpu@0", "/cpus/cpu@1", "/cpus/cpu@2"}) {
    EXPECT_GE(fdt_path_offset(tree, cpu), 0) << cpu;
  }
  EXPECT_LT(fdt_path_offset(tree, "/cpus/cpu@3"), 0);
  const int device = fdt_path_offset(tree, "/soc/virtio@d0101000");
  ASSERT_GE(device, 0);
  int length = 0;
  const auto* interrupts =
      static_cast<const fdt32_t*>(fdt_getprop(tree, device, "interrupts", &length));
  ASSERT_EQ(length, 8);
  EXPECT_EQ(fdt32_to_cpu(interrupts[0]), 6u);
  EXPECT_EQ(fdt32_to_cpu(interrupts[1]), 3u);  // edge-rising
  const int ioapic = fdt_node_offset_by_compatible(tree, -1, "intel,ce4100-ioapic");
  ASSERT_GE(ioapic, 0);
  const auto* parent =
      static_cast<const fdt32_t*>(fdt_getprop(tree, device, "interrupt-parent", &length));
  ASSERT_NE(parent, nullptr);
  EXPECT_EQ(fdt_get_phandle(tree, ioapic), fdt32_to_cpu(*parent));
}

TEST(DeviceTree, FitsWithTheLargestMachine) {
  std::vector<DeviceTreeDevice> devices;
  for (uint32_t slot = 0; slot < layout::kMaxVirtioDevices; ++slot) {
    devices.push_back(
        {layout::kVirtioBase + slot * layout::kVirtioStride, layout::gsiOfSlot(slot)});
  }
  EXPECT_LT(buildDeviceTree(64, devices).size(), layout::kDeviceTreeMaxBytes);
}

TEST(LinuxBoot, WritesBootParams) {
  GuestMemory memory(layout::kGapStart + 16 * kMiB);
  const auto tree = buildDeviceTree(1, {});
  writeBootData(memory, {{kMiB, 2 * kMiB}, {8 * kMiB, 1234}, "quiet x=1", tree});
  const auto params = memory.read<boot_params>(layout::kBootParams);
  ASSERT_TRUE(params);
  EXPECT_EQ(params->hdr.ramdisk_image, 8 * kMiB);
  EXPECT_EQ(params->hdr.ramdisk_size, 1234u);
  EXPECT_EQ(params->hdr.cmdline_size, 10u);
  std::array<char, 10> line{};
  ASSERT_TRUE(memory.read(layout::kCommandLine, std::as_writable_bytes(std::span(line))));
  EXPECT_STREQ(line.data(), "quiet x=1");
  ASSERT_EQ(params->e820_entries, 3);
  EXPECT_EQ(params->e820_table[1].addr + params->e820_table[1].size, layout::kGapStart);
  EXPECT_EQ(params->e820_table[2].addr, layout::kGapEnd);
  EXPECT_EQ(params->e820_table[2].size, 16 * kMiB);

  // The chain of setup_data: the tree, then a seed that is not the same twice.
  struct Node {
    uint64_t next;
    uint32_t type, bytes;
  };
  const auto first = memory.read<Node>(params->hdr.setup_data);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->type, 2u);
  EXPECT_EQ(first->bytes, tree.size());
  const auto second = memory.read<Node>(first->next);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->type, 9u);
  EXPECT_EQ(second->next, 0u);
  const auto seed = memory.read<uint64_t>(first->next + sizeof(Node));
  writeBootData(memory, {{kMiB, 2 * kMiB}, {}, "", tree});
  EXPECT_NE(memory.read<uint64_t>(first->next + sizeof(Node)), seed);
}

TEST(LinuxBoot, CommandLineHasALimit) {
  GuestMemory memory(4 * kMiB);
  const auto tree = buildDeviceTree(1, {});
  EXPECT_THROW(writeBootData(memory, {{}, {}, std::string(2048, 'x'), tree}), Error);
  writeBootData(memory, {{}, {}, std::string(2047, 'x'), tree});
}

}  // namespace
}  // namespace hull::vmm
