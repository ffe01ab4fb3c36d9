#include "vmm/memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/error.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

constexpr uint64_t kLargePageBytes = 2 * layout::kMiB;

// The compiler may otherwise fetch the source again after the copy was checked (the guest would
// have changed it in between): behind this barrier only the copy holds the value.
void copyOnce(void* to, const void* from, size_t size) noexcept {
  if (size > 0) std::memcpy(to, from, size);  // an empty span may have no address
  asm volatile("" ::: "memory");
}

// The size is settled before anybody else gets it: a file that is cut short ends who touches it.
Fd makeMemoryFile(uint64_t bytes) {
  Fd file(memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) throw sysError("make a memory file for the guest");
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) < 0) throw sysError("size guest memory");
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    throw sysError("seal guest memory");
  }
  return file;
}

// Aligned to large pages, so that one of the guest can be one of the host. The surplus goes back.
// `file` -1: private memory.
std::byte* mapAligned(uint64_t bytes, int file) {
  const uint64_t reserved = bytes + kLargePageBytes;
  void* mapping = mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw sysError("map guest memory");
  auto* start = static_cast<std::byte*>(mapping);
  const uint64_t before = -reinterpret_cast<uint64_t>(start) % kLargePageBytes;
  if (before > 0) munmap(start, before);
  munmap(start + before + bytes, kLargePageBytes - before);
  if (file >= 0 && mmap(start + before, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file, 0) == MAP_FAILED) {
    throw sysError("map guest memory");
  }
  return start + before;
}

}  // namespace

GuestMemory::GuestMemory(uint64_t bytes, Sharing sharing) : bytes_(bytes) {
  if (bytes == 0 || bytes % layout::kPageBytes != 0) {
    throw Error(ErrorKind::kInvalidArgument, "map guest memory: not a multiple of a page");
  }
  if (sharing == Sharing::kShared) file_ = makeMemoryFile(bytes);
  mapping_ = mapAligned(bytes, file_.get());
  madvise(mapping_, bytes, MADV_DONTDUMP);
  const uint64_t low = std::min(bytes, layout::kGapStart);
  ranges_[range_count_++] = {0, low, mapping_};
  if (bytes > low) ranges_[range_count_++] = {layout::kGapEnd, bytes - low, mapping_ + low};
}

GuestMemory::~GuestMemory() {
  munmap(mapping_, bytes_);
}

void GuestMemory::mapPrivately(int fd) {
  if (mmap(mapping_, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
           0) == MAP_FAILED) {
    throw sysError("map the saved memory");
  }
  madvise(mapping_, bytes_, MADV_DONTDUMP);
  from_file_.assign((bytes_ + kLargePageBytes - 1) / kLargePageBytes, true);
}

void GuestMemory::preferLargePages(GuestAddress address, uint64_t size) noexcept {
  const uint64_t start = address / kLargePageBytes * kLargePageBytes;
  const uint64_t end = (address + size + kLargePageBytes - 1) / kLargePageBytes * kLargePageBytes;
  // Only advice: hosts without large pages do without.
  if (std::byte* at = find(start, end - start)) madvise(at, end - start, MADV_HUGEPAGE);
}

bool GuestMemory::read(GuestAddress address, std::span<std::byte> into) const noexcept {
  const std::byte* from = find(address, into.size());
  if (from == nullptr) return false;
  copyOnce(into.data(), from, into.size());
  return true;
}

bool GuestMemory::write(GuestAddress address, std::span<const std::byte> from) noexcept {
  std::byte* to = find(address, from.size());
  if (to == nullptr) return false;
  copyOnce(to, from.data(), from.size());
  return true;
}

std::optional<uint16_t> GuestMemory::loadAcquire(GuestAddress address) const noexcept {
  std::byte* at = find(address, sizeof(uint16_t));
  if (at == nullptr || address % sizeof(uint16_t) != 0) return std::nullopt;
  return std::atomic_ref(*reinterpret_cast<uint16_t*>(at)).load(std::memory_order_acquire);
}

bool GuestMemory::storeRelease(GuestAddress address, uint16_t value) noexcept {
  std::byte* at = find(address, sizeof(uint16_t));
  if (at == nullptr || address % sizeof(uint16_t) != 0) return false;
  std::atomic_ref(*reinterpret_cast<uint16_t*>(at)).store(value, std::memory_order_release);
  return true;
}

uint64_t GuestMemory::discard(GuestAddress address, uint64_t size) noexcept {
  std::byte* at = find(address, size);
  return at == nullptr ? 0 : discard(iovec{at, size});
}

// Pages that are only partly in the range stay.
uint64_t GuestMemory::discard(const iovec& buffer) noexcept {
  constexpr uint64_t kMask = layout::kPageBytes - 1;
  const auto begin = reinterpret_cast<uint64_t>(buffer.iov_base);
  const uint64_t start = (begin + kMask) & ~kMask;
  const uint64_t end = (begin + buffer.iov_len) & ~kMask;
  if (start >= end) return 0;
  if (!from_file_.empty()) {
    const auto base = reinterpret_cast<uint64_t>(mapping_);
    return discardMapped(start - base, end - base);
  }
  // Of a memory file the pages must go from the file, which others map, too.
  const int advice = file_ ? MADV_REMOVE : MADV_DONTNEED;
  return madvise(reinterpret_cast<void*>(start), end - start, advice) == 0 ? end - start : 0;
}

// Pages that are dropped would come back from the file, so a large page of the file is replaced as
// a whole (which bounds the number of mappings); less than a whole one stays.
uint64_t GuestMemory::discardMapped(uint64_t start, uint64_t end) noexcept {
  uint64_t discarded = 0;
  for (uint64_t at = start; at < end;) {
    const uint64_t block = at / kLargePageBytes;
    const uint64_t block_start = block * kLargePageBytes;
    const uint64_t block_end = std::min(block_start + kLargePageBytes, bytes_);
    const uint64_t stop = std::min(end, block_end);
    if (!from_file_[block]) {
      if (madvise(mapping_ + at, stop - at, MADV_DONTNEED) == 0) discarded += stop - at;
    } else if (at == block_start && stop == block_end) {
      constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
      if (mmap(mapping_ + at, stop - at, PROT_READ | PROT_WRITE, kFlags, -1, 0) != MAP_FAILED) {
        from_file_[block] = false;
        discarded += stop - at;
      }
    }
    at = stop;
  }
  return discarded;
}

std::optional<iovec> GuestMemory::iovecOf(GuestAddress address, uint64_t size) const noexcept {
  std::byte* at = find(address, size);
  if (at == nullptr) return std::nullopt;
  return iovec{at, size};
}

}  // namespace hull::vmm
