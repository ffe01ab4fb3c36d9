// Ethernet frames out of a byte stream: each behind its length, 4 bytes, big-endian (what QEMU's
// `-netdev stream` and passt speak). The peer is not trusted: a length that no frame can have ends
// the stream, because nothing behind it has a meaning. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace hull::vmm::virtio {

inline constexpr size_t kStreamLengthBytes = 4;

class StreamFrames {
 public:
  StreamFrames();

  // Where the stream's next bytes go, after next() gave nothing; empty only when broken().
  std::span<std::byte> space() noexcept;
  void filled(size_t bytes) noexcept;
  // The next whole frame, until the next call of space(); empty: bytes are missing, or broken().
  std::span<const std::byte> next() noexcept;
  bool broken() const noexcept { return broken_; }

 private:
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool broken_ = false;
};

}  // namespace hull::vmm::virtio
