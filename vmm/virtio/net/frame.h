// Checks on what the guest asks the host's network stack to do with a frame: the virtio-net header
// (virtio 1.2 §5.1.6) against the frame's length and the negotiated features, and the source
// and target address. Pure values, from copies. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/config/vm_config.h"

namespace hull::vmm::virtio {

// <linux/virtio_net.h> does not compile as C++; these are its names in our style (§5.1.3, §5.1.6).
enum NetFeature : unsigned {
  kNetChecksum = 0,
  kNetGuestChecksum = 1,
  kNetMtu = 3,
  kNetMac = 5,
  kNetGuestTso4 = 7,
  kNetGuestTso6 = 8,
  kNetHostTso4 = 11,
  kNetHostTso6 = 12,
  kNetMergeBuffers = 15,
};
constexpr uint64_t netBit(NetFeature feature) {
  return uint64_t{1} << feature;
}

struct NetHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
  uint16_t num_buffers;
};
inline constexpr uint8_t kNetNeedsChecksum = 1;
inline constexpr uint8_t kNetGsoNone = 0;
inline constexpr uint8_t kNetGsoTcp4 = 1;
inline constexpr uint8_t kNetGsoTcp6 = 4;

struct __attribute__((packed)) NetConfigSpace {
  std::array<uint8_t, 6> mac;
  uint16_t status;
  uint16_t max_virtqueue_pairs;
  uint16_t mtu;
};

inline constexpr uint64_t kNetHeaderBytes = 12;
static_assert(sizeof(NetHeader) == kNetHeaderBytes);
inline constexpr uint64_t kEthernetHeaderBytes = 14;
inline constexpr uint64_t kMaxFrameBytes = 65535 + kEthernetHeaderBytes;  // with segmentation

using MacAddress = std::array<uint8_t, 6>;

// The header to hand to the host's stack, cleaned of what does not concern it, or false: drop.
bool checkTransmitHeader(NetHeader& header, uint64_t frame_bytes, uint64_t features) noexcept;

// The Ethernet source address must be the guest's own.
bool hasSource(std::span<const std::byte, kEthernetHeaderBytes> ethernet,
               const MacAddress& mac) noexcept;

// How much of a frame the two checks look at: the Ethernet header and IPv4's fixed part.
inline constexpr size_t kCheckedFrameBytes = kEthernetHeaderBytes + 20;

// For networks with blocked addresses: ARP and IPv4 only, and no packet to one of those. `head` is
// the frame's beginning, kCheckedFrameBytes of it or all there is.
bool mayGoOut(std::span<const std::byte> head, std::span<const Ipv4Subnet> blocked) noexcept;

}  // namespace hull::vmm::virtio
