// What the process at the other end of a network card sends: whatever it is and however it is cut,
// only whole frames of a legal length come out, and they are its bytes in order.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "vmm/virtio/net/frame.h"
#include "vmm/virtio/net/stream_frames.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::vmm::virtio;
  if (size == 0) return 0;
  const size_t step = data[0] + size_t{1};  // how many bytes arrive at a time
  const uint8_t* fed = data + 1;
  const uint8_t* const end = data + size;
  const uint8_t* taken = fed;
  StreamFrames frames;
  for (;;) {
    for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
      if (frame.size() < kEthernetHeaderBytes || frame.size() > kMaxFrameBytes) abort();
      taken += kStreamLengthBytes;
      if (taken + frame.size() > fed || std::memcmp(taken, frame.data(), frame.size()) != 0)
        abort();
      taken += frame.size();
    }
    const auto space = frames.space();
    if (space.empty() != frames.broken()) abort();
    if (frames.broken() || fed == end) return 0;
    const size_t part = std::min({step, space.size(), static_cast<size_t>(end - fed)});
    std::memcpy(space.data(), fed, part);
    frames.filled(part);
    fed += part;
  }
}
