#include "vmm/virtio/net/frame.h"

#include <endian.h>

#include <algorithm>
#include <cstring>

namespace hull::vmm::virtio {

namespace {

// §5.1.6.2.2: the checksum field (2 bytes) lies inside the frame.
bool checksumFits(const NetHeader& header, uint64_t frame_bytes) {
  const uint64_t field = uint64_t{header.csum_start} + header.csum_offset;
  return header.csum_start >= kEthernetHeaderBytes && field + sizeof(uint16_t) <= frame_bytes;
}

}  // namespace

bool checkTransmitHeader(NetHeader& header, uint64_t frame_bytes, uint64_t features) noexcept {
  if (frame_bytes < kEthernetHeaderBytes || frame_bytes > kMaxFrameBytes) return false;
  header.num_buffers = 0;
  header.flags &= kNetNeedsChecksum;  // the other flags mean nothing in this direction
  if (header.flags != 0) {
    if ((features & netBit(kNetChecksum)) == 0) return false;
    if (!checksumFits(header, frame_bytes)) return false;
  } else {
    header.csum_start = header.csum_offset = 0;
  }
  if (header.gso_type == kNetGsoNone) {
    header.gso_size = header.hdr_len = 0;
    return true;
  }
  const uint64_t needed = header.gso_type == kNetGsoTcp4   ? netBit(kNetHostTso4)
                          : header.gso_type == kNetGsoTcp6 ? netBit(kNetHostTso6)
                                                           : 0;
  // §5.1.6.2.1: segmentation only with a checksum to fill in; a segment holds at least a byte.
  return needed != 0 && (features & needed) != 0 && header.flags != 0 && header.gso_size != 0 &&
         header.hdr_len <= frame_bytes;
}

bool hasSource(std::span<const std::byte, kEthernetHeaderBytes> ethernet,
               const MacAddress& mac) noexcept {
  constexpr size_t kSourceOffset = 6;
  return std::memcmp(ethernet.data() + kSourceOffset, mac.data(), mac.size()) == 0;
}

bool mayGoOut(std::span<const std::byte> head, std::span<const Ipv4Subnet> blocked) noexcept {
  constexpr size_t kTypeOffset = 12, kTargetOffset = kEthernetHeaderBytes + 16;  // RFC 791 §3.1
  constexpr uint16_t kTypeIpv4 = 0x0800, kTypeArp = 0x0806;
  uint16_t type = 0;
  if (head.size() < kEthernetHeaderBytes) return false;
  std::memcpy(&type, head.data() + kTypeOffset, sizeof type);
  type = be16toh(type);
  if (type == kTypeArp) return true;
  if (type != kTypeIpv4 || head.size() < kCheckedFrameBytes) return false;
  if (std::to_integer<uint8_t>(head[kEthernetHeaderBytes]) >> 4 != 4) return false;
  uint32_t target = 0;
  std::memcpy(&target, head.data() + kTargetOffset, sizeof target);
  target = be32toh(target);
  return std::none_of(blocked.begin(), blocked.end(), [&](const Ipv4Subnet& subnet) {
    constexpr unsigned kAddressBits = 32;
    const unsigned host_bits = kAddressBits - subnet.prefix_length;
    return host_bits >= kAddressBits || (target ^ subnet.address) >> host_bits == 0;
  });
}

}  // namespace hull::vmm::virtio
