#include "vmm/boot/elf_loader.h"

#include <elf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorKind::kCorrupt, "load kernel: " + what);
}

// Offsets come from the file itself; pread takes none beyond 2^63.
void requireInFile(int fd, uint64_t offset, uint64_t bytes, const char* what) {
  const uint64_t size = fileSize(fd);
  if (offset > size || bytes > size - offset) corrupt(fmt::format("{} is cut off", what));
}

template <typename T>
void readAt(int fd, uint64_t offset, std::span<T> into, const char* what) {
  const auto bytes = std::as_writable_bytes(into);
  requireInFile(fd, offset, bytes.size(), what);
  if (preadFull(fd, bytes, offset) != bytes.size()) corrupt(fmt::format("{} is cut off", what));
}

Elf64_Ehdr readHeader(int fd) {
  Elf64_Ehdr header{};
  readAt(fd, 0, std::span(&header, 1), "ELF header");
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    corrupt("not an ELF file (an uncompressed vmlinux is needed, not a bzImage)");
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64 || header.e_type != ET_EXEC) {
    corrupt("not a 64-bit x86 executable");
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum > kMaxProgramHeaders) {
    corrupt("program headers of a strange size or number");
  }
  return header;
}

// Reads from `fd` right into guest memory; the caller has checked the range.
void readInto(int fd, uint64_t file_offset, uint64_t bytes, GuestAddress address,
              const GuestMemory& memory) {
  requireInFile(fd, file_offset, bytes, "segment");
  const auto target = memory.iovecOf(address, bytes);
  if (!target) corrupt(fmt::format("{} bytes at {:#x} are outside of memory", bytes, address));
  const std::span into(static_cast<std::byte*>(target->iov_base), bytes);
  if (preadFull(fd, into, file_offset) != bytes) corrupt("segment is cut off");
}

// The range [address, address + memsz) that a segment takes, checked against memory.
GuestAddress checkSegment(const Elf64_Phdr& segment, const GuestMemory& memory) {
  if (segment.p_filesz > segment.p_memsz) corrupt("segment larger in the file than in memory");
  if (segment.p_paddr < layout::kHighRamStart) {
    corrupt(fmt::format("segment at {:#x} is below 1 MiB", segment.p_paddr));
  }
  if (!memory.contains(segment.p_paddr, segment.p_memsz)) {
    corrupt(fmt::format("segment of {} bytes at {:#x} does not fit {} MiB of memory",
                        segment.p_memsz, segment.p_paddr, memory.bytes() / layout::kMiB));
  }
  return segment.p_paddr + segment.p_memsz;
}

}  // namespace

LoadedKernel loadKernel(int fd, GuestMemory& memory) {
  const Elf64_Ehdr header = readHeader(fd);
  std::array<Elf64_Phdr, kMaxProgramHeaders> table{};
  const auto segments = std::span(table).first(header.e_phnum);
  readAt(fd, header.e_phoff, segments, "program header table");

  LoadedKernel kernel{header.e_entry, 0};
  bool entry_is_loaded = false;
  std::vector<std::pair<GuestAddress, GuestAddress>> taken;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    const GuestAddress end = checkSegment(segment, memory);
    for (const auto& [other_start, other_end] : taken) {
      if (segment.p_paddr < other_end && other_start < end) corrupt("segments overlap");
    }
    taken.emplace_back(segment.p_paddr, end);
    memory.preferLargePages(segment.p_paddr, segment.p_memsz);
    readInto(fd, segment.p_offset, segment.p_filesz, segment.p_paddr, memory);
    kernel.end = std::max(kernel.end, end);
    entry_is_loaded = entry_is_loaded || (header.e_entry >= segment.p_paddr &&
                                          header.e_entry - segment.p_paddr < segment.p_filesz);
  }
  if (!entry_is_loaded) corrupt("entry point is in no segment");
  if (kernel.end > memory.lowEnd()) corrupt("kernel above the device hole");
  return kernel;
}

LoadedInitrd loadInitrd(int fd, GuestMemory& memory, GuestAddress kernel_end) {
  const uint64_t bytes = fileSize(fd);
  const GuestAddress limit = std::min(memory.lowEnd(), layout::kInitrdMaxEnd);
  if (bytes == 0 || bytes > limit) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("load initrd: {} bytes are empty or too much", bytes));
  }
  const GuestAddress address = (limit - bytes) & ~(layout::kPageBytes - 1);
  if (address < kernel_end) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("load initrd: {} MiB of memory do not hold kernel and initrd; give the "
                            "VM more memory",
                            memory.bytes() / layout::kMiB));
  }
  readInto(fd, 0, bytes, address, memory);
  return {address, bytes};
}

}  // namespace hull::vmm
