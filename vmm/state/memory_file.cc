#include "vmm/state/memory_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

using layout::kPageBytes;

struct Trailer {
  std::array<char, 8> magic;
  SaveId id;
  uint64_t memory_bytes;
};
constexpr std::array<char, 8> kMagic{'H', 'U', 'L', 'L', 'M', 'E', 'M', '\n'};
constexpr uint64_t kMaxRunBytes = layout::kMiB;  // written at once

bool isZero(const std::byte* page) {
  // Equal to itself one byte on, and its first byte is zero.
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPageBytes - 1) == 0;
}

// Runs of pages that are not zeros, each with one write.
uint64_t writeRange(int fd, const GuestMemory::Range& range, uint64_t file_offset) {
  uint64_t written = 0;
  for (uint64_t at = 0; at < range.bytes;) {
    uint64_t end = at;
    while (end < range.bytes && end - at < kMaxRunBytes && !isZero(range.host + end)) {
      end += kPageBytes;
    }
    if (end == at) {
      at += kPageBytes;
      continue;
    }
    pwriteFull(fd, {range.host + at, end - at}, file_offset + at);
    written += end - at;
    at = end;
  }
  return written;
}

}  // namespace

// The vCPUs stand still and no device works, so memory may be read in place.
uint64_t writeMemoryFile(int fd, const GuestMemory& memory, const SaveId& id) {
  return inContext("save the memory", [&] {
    const uint64_t file_bytes = memory.bytes() + kPageBytes;
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, static_cast<off_t>(file_bytes)) < 0) {
      throw sysError("size the file");
    }
    uint64_t written = 0;
    uint64_t offset = 0;
    for (const auto& range : memory.ranges()) {
      written += writeRange(fd, range, offset);
      offset += range.bytes;
    }
    const Trailer trailer{kMagic, id, memory.bytes()};
    pwriteFull(fd, std::as_bytes(std::span(&trailer, 1)), offset);
    return written;
  });
}

void mapMemoryFile(int fd, GuestMemory& memory, const SaveId& id) {
  inContext("restore the memory", [&] {
    const uint64_t bytes = fileSize(fd);
    if (bytes != memory.bytes() + kPageBytes) {
      throw Error(ErrorKind::kCorrupt, fmt::format("the file has {} bytes instead of {}", bytes,
                                                   memory.bytes() + kPageBytes));
    }
    Trailer trailer{};
    preadFull(fd, std::as_writable_bytes(std::span(&trailer, 1)), memory.bytes());
    if (trailer.magic != kMagic || trailer.memory_bytes != memory.bytes()) {
      throw Error(ErrorKind::kCorrupt, "not a VM's memory");
    }
    if (trailer.id != id) {
      throw Error(ErrorKind::kCorrupt, "it was saved another time than the state");
    }
    memory.mapPrivately(fd);
  });
}

}  // namespace hull::vmm
