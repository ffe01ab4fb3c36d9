#include "vmm/virtio/fs/vhost_user.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/virtio/device.h"

namespace hull::vmm::virtio {

namespace {

// "Memory regions description".
struct MemoryRegion {
  uint64_t guest_address;
  uint64_t size;
  uint64_t user_address;
  uint64_t mmap_offset;
};
constexpr size_t kMaxRegions = 2;
struct MemoryTable {
  uint32_t count;
  uint32_t padding;
  std::array<MemoryRegion, kMaxRegions> regions;
};

// "A vring state description": `value` is a size, a base or a switch.
struct VringState {
  uint32_t index;
  uint32_t value;
};
// "A vring address description".
struct VringAddress {
  uint32_t index;
  uint32_t flags;
  uint64_t descriptors;
  uint64_t used;
  uint64_t available;
  uint64_t log;
};

constexpr size_t kMaxFdsPerMessage = 2;

std::string_view nameOf(VhostRequest request) {
  switch (request) {
    case VhostRequest::kGetFeatures:
      return "GET_FEATURES";
    case VhostRequest::kSetFeatures:
      return "SET_FEATURES";
    case VhostRequest::kSetOwner:
      return "SET_OWNER";
    case VhostRequest::kSetMemTable:
      return "SET_MEM_TABLE";
    case VhostRequest::kSetVringNum:
      return "SET_VRING_NUM";
    case VhostRequest::kSetVringAddr:
      return "SET_VRING_ADDR";
    case VhostRequest::kSetVringBase:
      return "SET_VRING_BASE";
    case VhostRequest::kGetVringBase:
      return "GET_VRING_BASE";
    case VhostRequest::kSetVringKick:
      return "SET_VRING_KICK";
    case VhostRequest::kSetVringCall:
      return "SET_VRING_CALL";
    case VhostRequest::kGetProtocolFeatures:
      return "GET_PROTOCOL_FEATURES";
    case VhostRequest::kSetProtocolFeatures:
      return "SET_PROTOCOL_FEATURES";
    case VhostRequest::kGetQueueNum:
      return "GET_QUEUE_NUM";
    case VhostRequest::kSetVringEnable:
      return "SET_VRING_ENABLE";
  }
  return "?";
}

}  // namespace

bool VhostUserClient::fail(VhostRequest request, std::string_view cause) noexcept {
  if (failed_) return false;
  failed_ = true;
  failure_ = fmt::format("vhost-user {}: {}", nameOf(request), cause);
  return false;
}

bool VhostUserClient::send(VhostRequest request, uint32_t flags, std::span<const std::byte> payload,
                           std::span<const int> fds) noexcept {
  if (failed_) return false;
  VhostHeader header{static_cast<uint32_t>(request), kVhostVersion | flags,
                     static_cast<uint32_t>(payload.size())};
  std::array<iovec, 2> parts{
      {{&header, sizeof header}, {const_cast<std::byte*>(payload.data()), payload.size()}}};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxFdsPerMessage * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = payload.empty() ? 1 : 2;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  // A few dozen bytes into an empty buffer: what does not fit is not being read, so the back end
  // is stuck or hostile.
  ssize_t sent;
  do {
    sent = sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return fail(request, std::strerror(errno));
  if (static_cast<size_t>(sent) != sizeof header + payload.size()) {
    return fail(request, "the back end does not read");
  }
  return true;
}

// No room for control data: descriptors sent along never reach this process.
bool VhostUserClient::receiveBytes(VhostRequest request, std::span<std::byte> into,
                                   Clock::time_point deadline) noexcept {
  while (!into.empty()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd readable{socket_, POLLIN, 0};
    const int ready = poll(&readable, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(request, "no answer in time");
    iovec part{into.data(), into.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t got = recvmsg(socket_, &message, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return fail(request, std::strerror(errno));
    if (got == 0) return fail(request, "the back end ended");
    into = into.subspan(static_cast<size_t>(got));
  }
  return true;
}

bool VhostUserClient::receive(VhostRequest request, std::span<std::byte> payload) noexcept {
  const auto deadline = Clock::now() + reply_time_;
  VhostHeader header{};
  if (!receiveBytes(request, std::as_writable_bytes(std::span(&header, 1)), deadline)) return false;
  if (header.request != static_cast<uint32_t>(request) ||
      (header.flags & ~kVhostNeedReply) != (kVhostVersion | kVhostReply)) {
    return fail(request, "the answer to another question");
  }
  if (header.size != payload.size()) return fail(request, "an answer of the wrong size");
  return receiveBytes(request, payload, deadline);
}

// "VHOST_USER_PROTOCOL_F_REPLY_ACK": zero is success.
bool VhostUserClient::set(VhostRequest request, std::span<const std::byte> payload,
                          std::span<const int> fds) noexcept {
  const bool acknowledged = (protocol_features_ & kVhostReplyAck) != 0;
  if (!send(request, acknowledged ? kVhostNeedReply : 0, payload, fds)) return false;
  if (!acknowledged) return true;
  uint64_t result = 0;
  if (!receive(request, std::as_writable_bytes(std::span(&result, 1)))) return false;
  return result == 0 || fail(request, "the back end refused");
}

std::optional<uint64_t> VhostUserClient::get(VhostRequest request) noexcept {
  uint64_t value = 0;
  if (!send(request, 0, {}, {})) return std::nullopt;
  if (!receive(request, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
  return value;
}

bool VhostUserClient::greet(uint32_t queues) noexcept {
  if (!set(VhostRequest::kSetOwner, {})) return false;
  const auto features = get(VhostRequest::kGetFeatures);
  if (!features) return false;
  if ((*features & kFeatureVersion1) == 0 || (*features & kVhostProtocolFeatures) == 0) {
    return fail(VhostRequest::kGetFeatures, "no virtio 1 or no protocol features");
  }
  features_ = *features;
  const auto offered = get(VhostRequest::kGetProtocolFeatures);
  if (!offered) return false;
  const uint64_t chosen = *offered & (kVhostMq | kVhostReplyAck);
  if (!setValue(VhostRequest::kSetProtocolFeatures, chosen)) return false;
  protocol_features_ = chosen;
  if ((chosen & kVhostMq) == 0) return true;  // it finds out by itself which queues there are
  const auto count = get(VhostRequest::kGetQueueNum);
  if (!count) return false;
  return *count >= queues || fail(VhostRequest::kGetQueueNum, "too few queues");
}

bool VhostUserClient::setMemory(const GuestMemory& memory) noexcept {
  const auto request = VhostRequest::kSetMemTable;
  if (memory.fd() < 0) return fail(request, "the guest's memory is not shared");
  MemoryTable table{};
  std::array<int, kMaxRegions> fds{};
  uint64_t offset = 0;
  for (const auto& range : memory.ranges()) {
    fds[table.count] = memory.fd();
    table.regions[table.count++] = {range.start, range.bytes, range.start, offset};
    offset += range.bytes;
  }
  const size_t bytes = offsetof(MemoryTable, regions) + table.count * sizeof(MemoryRegion);
  return set(request, std::as_bytes(std::span(&table, 1)).first(bytes),
             std::span(fds).first(table.count));
}

bool VhostUserClient::setFeatures(uint64_t features) noexcept {
  return setValue(VhostRequest::kSetFeatures, features | kVhostProtocolFeatures);
}

bool VhostUserClient::startQueue(uint32_t index, const QueueLayout& layout, QueuePosition position,
                                 VhostQueueEvents events) noexcept {
  // Kick and call: the low eight bits are the queue, bit 8 would say "no descriptor".
  const uint64_t queue = index;
  const VringAddress address{index, 0, layout.descriptors, layout.used, layout.available, 0};
  return setValue(VhostRequest::kSetVringNum, VringState{index, layout.size}) &&
         setValue(VhostRequest::kSetVringBase, VringState{index, position.next_available}) &&
         setValue(VhostRequest::kSetVringAddr, address) &&
         setValue(VhostRequest::kSetVringCall, queue, std::span(&events.call, 1)) &&
         setValue(VhostRequest::kSetVringKick, queue, std::span(&events.kick, 1)) &&
         setValue(VhostRequest::kSetVringEnable, VringState{index, 1});
}

std::optional<uint16_t> VhostUserClient::stopQueue(uint32_t index) noexcept {
  const auto request = VhostRequest::kGetVringBase;
  VringState state{index, 0};
  if (!send(request, 0, std::as_bytes(std::span(&state, 1)), {})) return std::nullopt;
  if (!receive(request, std::as_writable_bytes(std::span(&state, 1)))) return std::nullopt;
  if (state.index != index || state.value > UINT16_MAX) {
    fail(request, "an answer for another queue or out of range");
    return std::nullopt;
  }
  return static_cast<uint16_t>(state.value);
}

}  // namespace hull::vmm::virtio
