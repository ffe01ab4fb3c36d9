// virtio-vsock (virtio 1.2 §5.10), in this process: streams between clients of a unix socket and
// ports of the guest. The host side is described at VsockConfig. Only the host opens connections;
// what the guest asks for is reset.
//
// Bounds: kMaxStreams connections; at most ReceiveCredit::kBufferBytes held per stream for a client
// that reads slowly; nothing is held in the other direction, bytes wait in the client's socket
// until the guest has credit and buffers. kMaxResets resets wait for buffers, further are dropped.
//
// Owner: Machine. Device thread; see device.h.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>

#include "base/event_loop.h"
#include "vmm/config/vm_config.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/vsock/packet.h"
#include "vmm/virtio/vsock/stream.h"

namespace hull::vmm::virtio {

class VsockDevice final : public Device {
 public:
  static constexpr uint16_t kQueueSize = 256;
  static constexpr size_t kMaxStreams = 512;
  static constexpr size_t kMaxResets = 256;
  static constexpr std::chrono::milliseconds kClosingTimeout{8000};

  // Does not own config.listener_fd. Accepts clients from the first turn of `loop` on.
  VsockDevice(const VsockConfig& config, EventLoop& loop);
  ~VsockDevice() override;

  DeviceType type() const noexcept override { return DeviceType::kVsock; }
  uint64_t features() const noexcept override { return 0; }
  std::span<const uint16_t> queueSizes() const noexcept override { return kQueueSizes; }
  std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void activate(Activation&& activation) noexcept override;
  void notify() noexcept override;
  void reset() noexcept override;
  std::vector<QueuePosition> queuePositions() const noexcept override;
  // Streams do not survive: after a load the guest is told to forget its connections, and hears of
  // no new ones before it has done so.
  void save(ByteWriter& out) const override;
  bool load(ByteReader& in) override;

  size_t streams() const { return streams_.size(); }

 private:
  static constexpr std::array<uint16_t, 3> kQueueSizes{kQueueSize, kQueueSize, 16};
  using State = VsockStream::State;

  // Clients (vsock_clients.cc).
  void acceptClients() noexcept;
  void onClient(uint32_t host_port, uint32_t events) noexcept;
  void greet(VsockStream& stream) noexcept;
  void watch(VsockStream& stream) noexcept;
  void unwatch(VsockStream& stream) noexcept;
  void listen(bool on) noexcept;
  void destroy(VsockStream& stream) noexcept;
  bool evictClosing() noexcept;
  void startClosing(VsockStream& stream) noexcept;
  uint32_t newPort() noexcept;

  // From the guest.
  void receiveFromGuest() noexcept;
  void handlePacket(const Chain& chain) noexcept;
  void handleForStream(VsockStream& stream, const PacketHeader& header,
                       const Chain& chain) noexcept;
  void onResponse(VsockStream& stream) noexcept;
  void onData(VsockStream& stream, const PacketHeader& header, const Chain& chain) noexcept;
  void onShutdown(VsockStream& stream, uint32_t flags) noexcept;
  void startDraining(VsockStream& stream) noexcept;
  void afterDelivery(VsockStream& stream) noexcept;

  // To the guest.
  void sendToGuest() noexcept;
  bool sendOne() noexcept;
  std::optional<PacketHeader> nextControl(VsockStream& stream) noexcept;
  bool sendData(VsockStream& stream, Chain&& chain) noexcept;
  void sendEvent() noexcept;
  bool guestHasForgotten() noexcept;
  VsockStream* nextReady() noexcept;
  bool wantsToSend(const VsockStream& stream) const noexcept;
  void enqueue(VsockStream& stream) noexcept;
  void put(Chain&& chain, const PacketHeader& header) noexcept;
  PacketHeader headerFor(VsockStream& stream, uint16_t operation) noexcept;
  void queueReset(uint32_t host_port, uint32_t guest_port) noexcept;
  void resetStream(VsockStream& stream) noexcept;

  uint64_t guest_cid_;
  int listener_;
  EventLoop& loop_;
  virtio_vsock_config config_{};

  std::unordered_map<uint32_t, std::unique_ptr<VsockStream>> streams_;  // by host port
  std::deque<uint32_t> ready_;  // host ports of streams with something to send, in turn
  std::deque<PacketHeader> resets_;
  uint32_t next_port_ = 0;
  bool listening_ = false;
  bool reset_event_due_ = false;
  bool reset_event_unread_ = false;  // the guest has it, but has not given its buffer back
  uint16_t event_buffers_left_ = 0;  // … and had so many others
  std::vector<iovec> slice_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();  // timers look whether we still exist

  DeviceHost* host_ = nullptr;
  std::optional<Queue> to_guest_;
  std::optional<Queue> from_guest_;
  std::optional<Queue> events_;
};

}  // namespace hull::vmm::virtio
