// A tap as the host's end of a network card: the kernel takes checksums and segmentation from each
// frame's header, and is told what the guest can cope with. When the guest offers no buffers, the
// tap is left alone: its own queue fills up and the host drops, as on a wire.
// Owner: NetDevice. Device thread.
#pragma once

#include "vmm/virtio/net/backend.h"

namespace hull::vmm::virtio {

class TapBackend final : public NetBackend {
 public:
  // Throws when the descriptor is not a tap with IFF_VNET_HDR.
  explicit TapBackend(int tap);

  std::string_view name() const noexcept override { return "tap device"; }
  int fd() const noexcept override { return tap_; }
  uint64_t offloads() const noexcept override { return offloads_; }
  void negotiated(uint64_t features) noexcept override;
  void send(std::span<const iovec> parts) noexcept override;
  size_t receive(std::span<std::byte> into) noexcept override;

 private:
  int tap_;
  uint64_t offloads_ = 0;
};

}  // namespace hull::vmm::virtio
