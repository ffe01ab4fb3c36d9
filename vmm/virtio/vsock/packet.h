// virtio-vsock packet headers (virtio 1.2 §5.10.6) and the credit arithmetic of §5.10.6.3. Pure
// values: a header is copied from the guest once and only the copy is looked at. Any thread.
#pragma once

#include <linux/virtio_vsock.h>

#include <algorithm>
#include <cstdint>

namespace hull::vmm::virtio {

using PacketHeader = virtio_vsock_hdr;
inline constexpr uint64_t kPacketHeaderBytes = 44;
static_assert(sizeof(PacketHeader) == kPacketHeaderBytes);

inline constexpr uint64_t kHostCid = 2;
inline constexpr uint32_t kMaxPacketDataBytes = 64 << 10;
inline constexpr uint32_t kShutdownReceive = VIRTIO_VSOCK_SHUTDOWN_RCV;
inline constexpr uint32_t kShutdownSend = VIRTIO_VSOCK_SHUTDOWN_SEND;
inline constexpr uint32_t kShutdownBoth = kShutdownReceive | kShutdownSend;

// What we may still send to the guest. All counters are free-running 32-bit (§5.10.6.3).
class SendCredit {
 public:
  // From every packet of the guest. False: it claims to have consumed what was never sent.
  bool update(uint32_t buffer_bytes, uint32_t forwarded) noexcept {
    if (static_cast<uint32_t>(sent_ - forwarded) > static_cast<uint32_t>(sent_ - forwarded_)) {
      return false;
    }
    buffer_bytes_ = buffer_bytes;
    forwarded_ = forwarded;
    return true;
  }
  // Nothing while a buffer that shrank is overdrawn.
  uint32_t available() const noexcept {
    const uint32_t in_flight = sent_ - forwarded_;
    return in_flight >= buffer_bytes_ ? 0 : buffer_bytes_ - in_flight;
  }
  void spend(uint32_t bytes) noexcept { sent_ += bytes; }

  uint32_t sent() const noexcept { return sent_; }

 private:
  uint32_t buffer_bytes_ = 0;
  uint32_t forwarded_ = 0;
  uint32_t sent_ = 0;
};

// What the guest may still send to us.
class ReceiveCredit {
 public:
  static constexpr uint32_t kBufferBytes = 128 << 10;

  // False: more than we granted.
  bool receive(uint32_t bytes) noexcept {
    if (bytes > kBufferBytes - buffered()) return false;
    received_ += bytes;
    return true;
  }
  void forward(uint32_t bytes) noexcept { forwarded_ += bytes; }
  uint32_t buffered() const noexcept { return received_ - forwarded_; }

  // To be called when a header with these values goes out.
  uint32_t announce() noexcept { return announced_ = forwarded_; }
  // The guest's idea of the room is stale by so much that it may be waiting (§5.10.6.3).
  bool worthAnnouncing() const noexcept {
    return static_cast<uint32_t>(forwarded_ - announced_) >= kBufferBytes / 4;
  }

 private:
  uint32_t received_ = 0;
  uint32_t forwarded_ = 0;
  uint32_t announced_ = 0;
};

}  // namespace hull::vmm::virtio
