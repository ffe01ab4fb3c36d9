// Block requests: the input is a list of requests, each split into descriptors as it says.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/block/thread_engine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  using namespace hull::vmm::virtio::testing;
  constexpr uint64_t kDiskBytes = 16384;
  static const Fd kDisk = [] {
    Fd file = makeMemfd("disk");
    writeFull(file.get(), std::string(kDiskBytes, 'd'));
    return file;
  }();
  static const Fd kReadOnlyDisk =
      openFile("/proc/self/fd/" + std::to_string(kDisk.get()), O_RDONLY);
  static const Fd kLower = [] {
    Fd file = makeMemfd("lower");
    writeFull(file.get(), std::string(4096, 'r'));
    return file;
  }();
  static EventLoop loop;
  static virtio::ThreadEngine engine(loop);
  static const bool kStarted = [] {
    engine.start(std::nullopt);
    return true;
  }();
  ByteReader in({reinterpret_cast<const char*>(data), size});
  GuestMemory memory(kTestMemoryBytes);
  FakeDriver driver(memory, 16);
  FakeHost host;
  const uint8_t shape = in.u8();
  const bool read_only = (shape & 1) != 0;
  const int fd = kStarted && read_only ? kReadOnlyDisk.get() : kDisk.get();
  virtio::BlockDevice device(
      {"fuzz", kDiskBytes, read_only, {{fd, 0, 0, 4096}, {fd, 8192, 8192, 4096}}}, 1, engine, loop);
  if (!read_only && (shape & 2) != 0) {
    std::vector<Fd> files;
    files.push_back(openFile("/proc/self/fd/" + std::to_string(kLower.get()), O_RDONLY));
    device.grow({"fuzz", 3 * kDiskBytes, true, {{0, 0, 2 * kDiskBytes, 4096, true}}},
                std::move(files));
  }
  std::vector<virtio::Queue> queues;
  queues.push_back(driver.queue());
  device.activate({memory, host, 0, std::move(queues)});
  for (int requests = 0; requests < 64 && in.ok() && !in.atEnd(); ++requests) {
    ChainBuilder builder(driver);
    const uint8_t parts = in.u8() % 8 + 1;
    for (int i = 0; i < parts; ++i) {
      const uint8_t kind = in.u8();
      if ((kind & 1) == 0) {
        builder.readable(in.raw(std::min<size_t>(in.u8() % 48, in.remaining())));
      } else {
        builder.writable(in.u16() % 9000);
      }
    }
    builder.send();
    device.notify();
    engine.drain();
    if (host.reset_reason) break;
  }
  if (fileSize(kDisk.get()) != kDiskBytes) abort();  // nothing may be written behind the segments
  std::string lower(4096, '\0');
  preadFull(kLower.get(), std::as_writable_bytes(std::span(lower)), 0);
  if (lower != std::string(4096, 'r')) abort();  // read-only is what no request writes
  return 0;
}
