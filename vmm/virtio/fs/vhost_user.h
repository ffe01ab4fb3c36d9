// The front end's side of the vhost-user protocol (QEMU's docs/interop/vhost-user, "vhost-user
// protocol"), as far as a device with plain split queues needs it. A back end is another process
// that works on the guest's queues in the guest's memory; it may be taken over or die at any
// moment. So every answer is awaited for a bounded time, must be exactly the one that was asked
// for, and any descriptor that comes with it is dropped by the kernel. The first failure is the
// last: whoever gets `false` looks at failure().
//
// Owner: the device. One thread at a time; blocks for at most kReplyTime a call.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/queue/queue.h"

namespace hull::vmm::virtio {

// "Front-end message types".
enum class VhostRequest : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
};

// "Header": bits 0–1 of the flags are the version, bit 2 marks a reply, bit 3 asks for one.
struct VhostHeader {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
};
static_assert(sizeof(VhostHeader) == 12);
inline constexpr uint32_t kVhostVersion = 1;
inline constexpr uint32_t kVhostReply = 1 << 2;
inline constexpr uint32_t kVhostNeedReply = 1 << 3;

inline constexpr uint64_t kVhostProtocolFeatures = uint64_t{1} << 30;  // VHOST_USER_F_…
// "Protocol features".
inline constexpr uint64_t kVhostMq = uint64_t{1} << 0;
inline constexpr uint64_t kVhostReplyAck = uint64_t{1} << 3;

// The descriptors of one queue: the driver's notifications, the device's interrupts.
struct VhostQueueEvents {
  int kick = -1;
  int call = -1;
};

class VhostUserClient {
 public:
  // A back end that starts with its VM on a busy host needs a while for its first answer.
  static constexpr std::chrono::milliseconds kReplyTime{20'000};

  // `socket` stays the caller's. `reply_time` is shorter in tests.
  explicit VhostUserClient(int socket, std::chrono::milliseconds reply_time = kReplyTime)
      : socket_(socket), reply_time_(reply_time) {}

  // Owner, features and protocol features; false when the back end has fewer than `queues` queues
  // or no virtio 1.
  [[nodiscard]] bool greet(uint32_t queues) noexcept;
  uint64_t features() const noexcept { return features_; }  // what the back end offers

  // The guest's memory, which must be shared, under its guest-physical addresses: this process's
  // own addresses stay its own.
  [[nodiscard]] bool setMemory(const GuestMemory& memory) noexcept;
  [[nodiscard]] bool setFeatures(uint64_t features) noexcept;
  [[nodiscard]] bool startQueue(uint32_t index, const QueueLayout& layout, QueuePosition position,
                                VhostQueueEvents events) noexcept;
  // Ends the back end's work on a queue: where it stands, in available requests taken.
  std::optional<uint16_t> stopQueue(uint32_t index) noexcept;

  bool failed() const noexcept { return failed_; }
  const std::string& failure() const noexcept { return failure_; }

 private:
  using Clock = std::chrono::steady_clock;

  bool fail(VhostRequest request, std::string_view cause) noexcept;
  bool send(VhostRequest request, uint32_t flags, std::span<const std::byte> payload,
            std::span<const int> fds) noexcept;
  bool receive(VhostRequest request, std::span<std::byte> payload) noexcept;
  bool receiveBytes(VhostRequest request, std::span<std::byte> into,
                    Clock::time_point deadline) noexcept;
  bool set(VhostRequest request, std::span<const std::byte> payload,
           std::span<const int> fds = {}) noexcept;
  template <typename T>
  bool setValue(VhostRequest request, const T& value, std::span<const int> fds = {}) noexcept {
    return set(request, std::as_bytes(std::span(&value, 1)), fds);
  }
  std::optional<uint64_t> get(VhostRequest request) noexcept;

  int socket_;
  std::chrono::milliseconds reply_time_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  bool failed_ = false;
  std::string failure_;
};

}  // namespace hull::vmm::virtio
