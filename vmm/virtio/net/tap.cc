#include "vmm/virtio/net/tap.h"

#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/virtio/net/frame.h"

namespace hull::vmm::virtio {

namespace {

// Guest to host: the tap takes these from the header of each frame.
constexpr uint64_t kHostOffloads =
    netBit(kNetChecksum) | netBit(kNetHostTso4) | netBit(kNetHostTso6);
// Host to guest: the tap must be told what the guest can cope with.
constexpr uint64_t kGuestOffloads =
    netBit(kNetGuestChecksum) | netBit(kNetGuestTso4) | netBit(kNetGuestTso6);

unsigned long tapOffloads(uint64_t features) {
  unsigned long flags = 0;
  // §5.1.3.1: segmentation offloads depend on the checksum offload.
  if ((features & netBit(kNetGuestChecksum)) == 0) return 0;
  flags |= TUN_F_CSUM;
  if ((features & netBit(kNetGuestTso4)) != 0) flags |= TUN_F_TSO4;
  if ((features & netBit(kNetGuestTso6)) != 0) flags |= TUN_F_TSO6;
  return flags;
}

}  // namespace

TapBackend::TapBackend(int tap) : tap_(tap) {
  int header_bytes = kNetHeaderBytes;
  if (ioctl(tap_, TUNSETVNETHDRSZ, &header_bytes) < 0) {
    throw sysError("set up network: tap_fd is not a tap device with IFF_VNET_HDR");
  }
  setNonBlocking(tap_);
  offloads_ = kHostOffloads;
  if (ioctl(tap_, TUNSETOFFLOAD, tapOffloads(kGuestOffloads)) == 0) offloads_ |= kGuestOffloads;
  ioctl(tap_, TUNSETOFFLOAD, 0UL);
}

void TapBackend::negotiated(uint64_t features) noexcept {
  if (ioctl(tap_, TUNSETOFFLOAD, tapOffloads(features)) < 0) {
    log::warning("net: the tap refused the negotiated offloads");
  }
}

void TapBackend::send(std::span<const iovec> parts) noexcept {
  [[maybe_unused]] const ssize_t sent = writev(tap_, parts.data(), static_cast<int>(parts.size()));
}

size_t TapBackend::receive(std::span<std::byte> into) noexcept {
  const ssize_t got = ::read(tap_, into.data(), into.size());
  return got <= static_cast<ssize_t>(kNetHeaderBytes) ? 0 : static_cast<size_t>(got);
}

}  // namespace hull::vmm::virtio
