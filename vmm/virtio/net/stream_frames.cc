#include "vmm/virtio/net/stream_frames.h"

#include <endian.h>

#include <cstring>

#include "vmm/virtio/net/frame.h"

namespace hull::vmm::virtio {

namespace {

// Room for one frame that is not whole yet, and for as much behind it.
constexpr size_t kBufferBytes = 2 * (kStreamLengthBytes + kMaxFrameBytes);

}  // namespace

StreamFrames::StreamFrames() : buffer_(std::make_unique<std::byte[]>(kBufferBytes)) {}

std::span<std::byte> StreamFrames::space() noexcept {
  if (broken_) return {};
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  return {buffer_.get() + end_, kBufferBytes - end_};
}

void StreamFrames::filled(size_t bytes) noexcept {
  end_ += bytes;
}

std::span<const std::byte> StreamFrames::next() noexcept {
  if (broken_ || end_ - begin_ < kStreamLengthBytes) return {};
  uint32_t length = 0;
  std::memcpy(&length, buffer_.get() + begin_, sizeof length);
  length = be32toh(length);
  if (length < kEthernetHeaderBytes || length > kMaxFrameBytes) {
    broken_ = true;
    return {};
  }
  if (end_ - begin_ < kStreamLengthBytes + length) return {};
  const std::span<const std::byte> frame(buffer_.get() + begin_ + kStreamLengthBytes, length);
  begin_ += kStreamLengthBytes + length;
  return frame;
}

}  // namespace hull::vmm::virtio
