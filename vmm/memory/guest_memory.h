// The guest's memory. One mapping in this process, up to two ranges for the guest: [0, 3 GiB) and
// [4 GiB, …). The guest may change any byte at any moment, so nothing here hands out references
// for parsing: copy once (read), check the copy, use the copy. Only bulk data, which nobody
// interprets, is reached in place, as iovecs made after a bounds check and handed to readv/writev.
//
// Usually the mapping is private and anonymous. Where another process works on the guest's queues
// (vhost-user), it is a memory file that is shared with it, sealed so that the other cannot shrink
// it under our feet. The memory of a restored VM begins as a private mapping of the file it was
// saved in (state/memory_file.h).
//
// Owner: Machine. Any thread; all accesses are noexcept and answer with a value: an address outside
// of memory is the guest's mistake, never an exception.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/fd.h"

namespace hull::vmm {

using GuestAddress = uint64_t;

class GuestMemory {
 public:
  struct Range {
    GuestAddress start = 0;
    uint64_t bytes = 0;
    std::byte* host = nullptr;
  };

  enum class Sharing { kPrivate, kShared };

  // Reserves, but does not touch, `bytes` of zeroed memory; throws hull::Error.
  explicit GuestMemory(uint64_t bytes, Sharing sharing = Sharing::kPrivate);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  uint64_t bytes() const { return bytes_; }
  // The memory file, ranges one after the other; -1: private memory.
  int fd() const { return file_.get(); }
  std::span<const Range> ranges() const { return {ranges_.data(), range_count_}; }
  GuestAddress lowEnd() const { return ranges_[0].start + ranges_[0].bytes; }

  // Whether [address, address + size) is memory of one range. Empty ranges must lie in memory too.
  bool contains(GuestAddress address, uint64_t size) const noexcept {
    return find(address, size) != nullptr;
  }

  [[nodiscard]] bool read(GuestAddress address, std::span<std::byte> into) const noexcept;
  [[nodiscard]] bool write(GuestAddress address, std::span<const std::byte> from) noexcept;

  template <typename T>
  requires std::is_trivially_copyable_v<T> std::optional<T> read(GuestAddress address)
  const noexcept {
    T value;
    if (!read(address, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool write(GuestAddress address, const T& value) noexcept {
    return write(address, std::as_bytes(std::span(&value, 1)));
  }

  // Ring indices: one aligned 16-bit access, ordered against the copies before and after it
  // (virtio 1.2 §2.7.13: barriers). An odd address is outside of memory.
  std::optional<uint16_t> loadAcquire(GuestAddress address) const noexcept;
  [[nodiscard]] bool storeRelease(GuestAddress address, uint16_t value) noexcept;

  // Whatever was in memory is replaced by what is in the file, from its byte 0 on; the file itself
  // never changes. Before anybody uses the memory; not with Sharing::kShared. Throws hull::Error.
  void mapPrivately(int fd);

  // Advice for memory that is about to be filled: fewer page faults, for host and guest.
  void preferLargePages(GuestAddress address, uint64_t size) noexcept;

  // Gives whole pages inside of the range back to the host: they read as zeros from then on. The
  // guest's own memory, so nothing can go wrong but for the guest. Returns how many bytes that
  // were; 0 also when the range is not all memory. The rest keeps what is in it. Device thread.
  uint64_t discard(GuestAddress address, uint64_t size) noexcept;
  uint64_t discard(const iovec& buffer) noexcept;  // of iovecOf()

  // For bulk I/O only: the bytes belong to the guest and change under the caller's feet.
  std::optional<iovec> iovecOf(GuestAddress address, uint64_t size) const noexcept;

 private:
  std::byte* find(GuestAddress address, uint64_t size) const noexcept {
    for (size_t i = 0; i < range_count_; ++i) {
      const Range& range = ranges_[i];
      const uint64_t offset = address - range.start;
      if (address >= range.start && offset < range.bytes && size <= range.bytes - offset) {
        return range.host + offset;
      }
    }
    return nullptr;
  }

  uint64_t discardMapped(uint64_t start, uint64_t end) noexcept;

  uint64_t bytes_;
  Fd file_;
  std::byte* mapping_ = nullptr;
  std::array<Range, 2> ranges_;
  size_t range_count_ = 0;
  // By large page: still pages of the file of mapPrivately(). Empty: never were.
  std::vector<bool> from_file_;
};

}  // namespace hull::vmm
