// A block device behind its registers: the input is the memory, then register accesses of any
// width at any offset, as vCPUs make them.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/testing/inline_thread.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/block/thread_engine.h"
#include "vmm/virtio/mmio/transport.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  constexpr uint64_t kMemoryBytes = 16384;
  constexpr uint64_t kWindowBytes = 0x200;
  static const Fd kDisk = [] {
    const Fd file = makeMemfd("disk");
    return openFile("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY);
  }();
  static EventLoop loop;
  static virtio::ThreadEngine engine(loop);
  static const bool kStarted = [] {
    engine.start(std::nullopt);
    return true;
  }();
  ByteReader in({reinterpret_cast<const char*>(data), size});
  GuestMemory memory(kMemoryBytes);
  const auto image = in.view(kMemoryBytes);
  if (!kStarted || !in.ok() || !memory.write(0, asBytes(image))) return 0;
  virtio::testing::InlineThread thread;
  virtio::BlockDevice device({"fuzz", 8192, true, {{kDisk.get(), 0, 0, 4096}}}, 1, engine, loop);
  virtio::MmioTransport transport(memory, device, thread);
  while (in.ok() && !in.atEnd()) {
    const uint8_t what = in.u8();
    const uint64_t offset = in.u16() % kWindowBytes;
    const size_t width = std::min<uint64_t>(size_t{1} << (what & 3), kWindowBytes - offset);
    std::array<std::byte, 8> value{};
    if ((what & 4) != 0) {
      transport.read(offset, std::span(value).first(width));
    } else {
      const uint64_t number = in.u32();
      std::memcpy(value.data(), &number, sizeof number);
      transport.write(offset, std::span(value).first(width));
    }
    if ((what & 8) != 0) transport.onNotify();
    engine.drain();
    thread.runPosted();
  }
  ByteWriter state;
  transport.save(state);
  return 0;
}
