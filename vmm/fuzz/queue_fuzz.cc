// A virtqueue whose whole memory, rings and all, is the input. Between two drains the "guest"
// writes the next piece of the input over it.
#include <algorithm>
#include <cstdlib>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/queue/queue.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  constexpr uint64_t kMemoryBytes = 16384;
  constexpr int kMaxRounds = 8;
  ByteReader in({reinterpret_cast<const char*>(data), size});
  GuestMemory memory(kMemoryBytes);
  const uint8_t flags = in.u8();
  const virtio::QueueLayout layout{in.u16(), in.u16(), in.u16(), in.u16()};
  auto queue = virtio::Queue::create(memory, layout, 64, (flags & 1) != 0, (flags & 2) != 0);
  if (!queue || !in.ok()) return 0;
  queue->setPosition({in.u16(), in.u16()});
  std::optional<virtio::Chain> kept;
  for (int round = 0; round < kMaxRounds && in.remaining() > 2; ++round) {
    const uint64_t at = in.u16() % kMemoryBytes;
    const size_t bytes =
        std::min<size_t>(in.remaining(), std::min<size_t>(4096, kMemoryBytes - at));
    if (!memory.write(at, asBytes(in.raw(bytes)))) abort();
    uint32_t handled = 0;
    virtio::drain(*queue, [&](virtio::Chain&& chain) {
      if (++handled > queue->size()) abort();
      std::array<std::byte, 16> header{};
      const bool whole = chain.read(0, header);
      if (whole != (chain.readableBytes() >= header.size())) abort();
      const bool fits = chain.write(chain.writableBytes() / 2, std::span(header).first(1));
      if (fits != (chain.writableBytes() > 0)) abort();
      if ((flags & 4) != 0 && !kept) {
        kept = std::move(chain);
      } else {
        queue->push(std::move(chain), 1);
      }
      return true;
    });
    queue->takeInterrupt();
  }
  if (kept) queue->drop(std::move(*kept));
  return 0;
}
