// The header that a guest puts before a frame: what passes is safe for the host's network stack.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/bytes.h"
#include "vmm/virtio/net/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm::virtio;
  ByteReader in({reinterpret_cast<const char*>(data), size});
  const uint64_t features = in.u64();
  const uint64_t frame_bytes = in.u32();
  const auto bytes = in.raw(kNetHeaderBytes);
  if (!in.ok()) return 0;
  NetHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (!checkTransmitHeader(header, frame_bytes, features)) return 0;
  if (frame_bytes < kEthernetHeaderBytes || frame_bytes > kMaxFrameBytes) abort();
  if (header.num_buffers != 0 || (header.flags & ~kNetNeedsChecksum) != 0) abort();
  const bool checksum = header.flags != 0;
  if (checksum && uint64_t{header.csum_start} + header.csum_offset + 2 > frame_bytes) abort();
  if (!checksum && header.csum_start + header.csum_offset != 0) abort();
  if (checksum && (features & netBit(kNetChecksum)) == 0) abort();
  if (header.gso_type == kNetGsoNone) {
    if (header.gso_size != 0 || header.hdr_len != 0) abort();
    return 0;
  }
  if (header.gso_type != kNetGsoTcp4 && header.gso_type != kNetGsoTcp6) abort();
  if (!checksum || header.gso_size == 0 || header.hdr_len > frame_bytes) abort();
  NetHeader again = header;  // cleaning a clean one changes nothing
  if (!checkTransmitHeader(again, frame_bytes, features)) abort();
  if (std::memcmp(&again, &header, sizeof again) != 0) abort();
  return 0;
}
