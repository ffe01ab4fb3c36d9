// Balloon: chains of any shape on any of the three queues, and configuration accesses in between.
#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/balloon/balloon.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  using namespace hull::vmm::virtio::testing;
  ByteReader in({reinterpret_cast<const char*>(data), size});
  GuestMemory memory(kTestMemoryBytes);
  std::array<FakeDriver, 3> drivers{FakeDriver(memory, 16, 0x10000),
                                    FakeDriver(memory, 16, 0x100000),
                                    FakeDriver(memory, 16, 0x200000)};
  FakeHost host;
  virtio::BalloonDevice device;
  std::vector<virtio::Queue> queues;
  for (auto& driver : drivers) queues.push_back(driver.queue());
  device.activate({memory, host, device.features(), std::move(queues)});
  for (int requests = 0; requests < 64 && in.ok() && !in.atEnd(); ++requests) {
    const uint8_t what = in.u8();
    if (what % 4 == 3) {
      const auto value = in.raw(std::min<size_t>(what / 4 % 9, in.remaining()));
      device.writeConfig(in.u8(), asBytes(value));
      std::array<std::byte, 8> space;
      device.readConfig(in.u8(), space);
      continue;
    }
    ChainBuilder builder(drivers[what % 4]);
    const uint8_t parts = in.u8() % 4 + 1;
    for (int i = 0; i < parts; ++i) {
      const uint8_t kind = in.u8();
      if (kind % 3 == 0) {
        builder.readable(asBytes(in.raw(std::min<size_t>(in.u8(), in.remaining()))));
      } else if (kind % 3 == 1) {
        builder.raw({in.u32(), in.u32(), virtio::kDescriptorWrite, 0});
      } else {
        builder.raw({in.u32(), in.u32(), 0, 0});
      }
    }
    builder.send();
    device.notify();
    if (host.reset_reason) break;
  }
  return 0;
}
