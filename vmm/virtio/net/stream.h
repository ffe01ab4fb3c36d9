// A connected stream socket as the host's end of a network card, with a process such as passt at
// the other (stream_frames.h says how frames are told apart). No offloads.
//
// A frame that the socket takes only in part is kept and finished first; until then the device
// takes none from the guest, so a slow peer slows the guest down and costs one frame of memory. The
// other way nothing is read before the guest has buffers. A peer that closes, or breaks the
// framing, is gone for good: the guest's network is silent from then on, its VM goes on.
//
// Owner: NetDevice. Device thread.
#pragma once

#include <vector>

#include "vmm/virtio/net/backend.h"
#include "vmm/virtio/net/stream_frames.h"

namespace hull::vmm::virtio {

class StreamBackend final : public NetBackend {
 public:
  // Throws when the descriptor is not a stream socket.
  explicit StreamBackend(int socket);

  std::string_view name() const noexcept override { return "network process"; }
  int fd() const noexcept override { return socket_; }
  void send(std::span<const iovec> parts) noexcept override;
  bool ready() noexcept override;
  size_t receive(std::span<std::byte> into) noexcept override;

 private:
  void keepRest(size_t sent) noexcept;
  bool fill() noexcept;

  int socket_;
  StreamFrames frames_;
  std::vector<iovec> slice_;
  // What the socket has not taken yet of the last frame.
  std::unique_ptr<std::byte[]> rest_;
  size_t rest_begin_ = 0, rest_end_ = 0;
};

}  // namespace hull::vmm::virtio
