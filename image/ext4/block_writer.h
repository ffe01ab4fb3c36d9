// Writes consecutive blocks of a file through one large buffer, and gathers what the disk's UUID is
// made of. Internal to image/ext4. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.h"
#include "base/hash.h"
#include "image/ext4/format.h"

namespace hull::ext4 {

// The checksums of all that is written, in the order of writing.
class Fingerprint {
 public:
  void add(uint32_t checksum) {
    pending_.push_back(checksum);
    if (pending_.size() == kPendingCount) flush();
  }
  std::string finishHex() {
    flush();
    return hasher_.finishHex();
  }

 private:
  static constexpr size_t kPendingCount = 4096;
  void flush() {
    hasher_.update(std::as_bytes(std::span(pending_)));
    pending_.clear();
  }
  Hasher hasher_;
  std::vector<uint32_t> pending_;
};

class BlockWriter {
 public:
  BlockWriter(int fd, uint64_t first_block) : fd_(fd), buffer_start_(first_block) {
    buffer_.resize(kBufferBlocks * kBlockBytes);
  }

  uint64_t position() const { return buffer_start_ + used_; }

  // The block at position(), all zeros, to be filled in before the next call.
  BlockSpan next() {
    if (used_ == kBufferBlocks) flush();
    std::byte* const block = buffer_.data() + used_++ * kBlockBytes;
    std::memset(block, 0, kBlockBytes);
    return BlockSpan(block, kBlockBytes);
  }

  void flush() {
    pwriteFull(fd_, std::span(buffer_).first(used_ * kBlockBytes), buffer_start_ * kBlockBytes);
    buffer_start_ += used_;
    used_ = 0;
  }

 private:
  static constexpr size_t kBufferBlocks = 256;
  int fd_;
  uint64_t buffer_start_;
  size_t used_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace hull::ext4
