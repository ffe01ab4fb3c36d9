// Requests of any shape to one device of the hostile grid (HULL_FUZZ_DEVICE, a name of
// hostile/device_cases.cc), behind its real transport: chains with any descriptors, scribbled
// rings, configuration accesses, and what the device's host side does meanwhile. In the end a
// driver that starts anew must be served. Where the host lacks something for the device, nothing is
// fuzzed.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/hostile/device_cases.h"

namespace {

using namespace hull;
using namespace hull::vmm::virtio;
using hostile::Bench;

hostile::Subject& subject() {
  static const std::unique_ptr<hostile::Subject> made = [] {
    for (const auto& device : hostile::deviceCases()) {
      if (device.name == HULL_FUZZ_DEVICE) return device.make();
    }
    abort();
  }();
  return *made;
}

void addChain(ByteReader& in, testing::FakeDriver& driver) {
  testing::ChainBuilder chain(driver);
  const uint8_t parts = in.u8() % 6 + 1;
  for (int i = 0; i < parts; ++i) {
    const uint8_t kind = in.u8();
    if (kind % 3 == 0) {
      chain.readable(asBytes(in.raw(std::min<size_t>(in.u8(), in.remaining()))));
    } else if (kind % 3 == 1) {
      chain.writable(in.u16());
    } else {
      chain.raw({in.u64(), in.u32(), static_cast<uint16_t>(in.u8() % 8), 0});
    }
  }
  (parts & 1) != 0 ? chain.send() : chain.sendIndirect();
}

void scribble(ByteReader& in, Bench& bench, uint32_t queue) {
  const auto& layout = bench.queue(queue).layout();
  constexpr uint64_t kRingBytes = 0x9000;  // FakeDriver's three parts
  const hull::vmm::GuestAddress at = layout.descriptors + in.u16() % kRingBytes;
  if (!bench.memory().write(at, in.u64())) abort();
}

void accessConfig(ByteReader& in, Bench& bench) {
  std::array<std::byte, 8> value{};
  const auto given = in.raw(std::min<size_t>(in.u8() % 9, in.remaining()));
  bench.transport().write(0x100 + in.u8(), asBytes(given));
  bench.transport().read(0x100 + in.u8(), value);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int kMaxSteps = 48;
  if (!subject().missing().empty()) return 0;
  ByteReader in({reinterpret_cast<const char*>(data), size});
  Bench bench(subject());
  bench.start();
  for (int step = 0; step < kMaxSteps && in.ok() && !in.atEnd(); ++step) {
    const uint8_t what = in.u8();
    const uint32_t queue = what / 4 % bench.queues();
    if (what % 4 == 0) addChain(in, bench.queue(queue));
    if (what % 4 == 1) scribble(in, bench, queue);
    if (what % 4 == 2) accessConfig(in, bench);
    if (what % 4 == 3) subject().stir();
    bench.kick();
    if (bench.needsReset()) break;
  }
  bench.start();
  if (!subject().serves(bench)) abort();
  bench.reset();
  return 0;
}
