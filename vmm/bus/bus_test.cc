#include "vmm/bus/bus.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/bus/platform.h"

namespace hull::vmm {
namespace {

class Echo final : public BusDevice {
 public:
  void read(uint64_t offset, std::span<std::byte> into) noexcept override {
    last = offset;
    std::memset(into.data(), 0x11, into.size());
  }
  void write(uint64_t offset, std::span<const std::byte>) noexcept override { last = offset; }
  uint64_t last = UINT64_MAX;
};

uint32_t readWord(const Bus& bus, uint64_t address) {
  uint32_t value = 0;
  bus.read(address, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

TEST(Bus, FindsTheDevice) {
  Bus bus("test");
  Echo low, high;
  bus.attach(0x2000, 0x100, high);
  bus.attach(0x1000, 0x100, low);
  EXPECT_EQ(readWord(bus, 0x1004), 0x11111111u);
  EXPECT_EQ(low.last, 4u);
  EXPECT_EQ(readWord(bus, 0x20fc), 0x11111111u);
  EXPECT_EQ(high.last, 0xfcu);
}

TEST(Bus, NobodyAnswersWithOnes) {
  Bus bus("test");
  Echo device;
  bus.attach(0x1000, 0x100, device);
  for (const uint64_t address : {uint64_t{0}, uint64_t{0xffc}, uint64_t{0x1100}, UINT64_MAX}) {
    EXPECT_EQ(readWord(bus, address), UINT32_MAX) << address;
  }
  EXPECT_EQ(readWord(bus, 0x10fe), UINT32_MAX);  // across the end
  const std::byte value{1};
  bus.write(0x1100, {&value, 1});
  EXPECT_EQ(device.last, UINT64_MAX);
}

TEST(Bus, RefusesOverlaps) {
  Bus bus("test");
  Echo device;
  bus.attach(0x1000, 0x100, device);
  EXPECT_THROW(bus.attach(0x1000, 1, device), Error);
  EXPECT_THROW(bus.attach(0xfff, 2, device), Error);
  EXPECT_THROW(bus.attach(0x10ff, 2, device), Error);
  EXPECT_THROW(bus.attach(0x5000, 0, device), Error);
  EXPECT_THROW(bus.attach(UINT64_MAX, 2, device), Error);
  bus.attach(0x1100, 1, device);
  bus.attach(0xfff, 1, device);
}

class Events final : public PlatformEvents {
 public:
  void guestReady() noexcept override { ready = true; }
  void guestEnds(ExitReason reason, std::string_view) noexcept override { end = reason; }
  bool ready = false;
  std::optional<ExitReason> end;
};

template <typename T>
void put(BusDevice& device, uint64_t offset, T value) {
  device.write(offset, std::as_bytes(std::span(&value, 1)));
}
template <typename T>
T get(BusDevice& device, uint64_t offset) {
  T value{};
  device.read(offset, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

TEST(Platform, ExitPortTellsItsValuesApart) {
  Events events;
  ExitPort port(events);
  put<uint8_t>(port, 0, 1);
  EXPECT_TRUE(events.ready);
  EXPECT_FALSE(events.end);
  put<uint8_t>(port, 0, 2);
  EXPECT_EQ(events.end, ExitReason::kPowerOff);
  put<uint8_t>(port, 0, 3);
  EXPECT_EQ(events.end, ExitReason::kReset);
  put<uint8_t>(port, 0, 4);
  EXPECT_EQ(events.end, ExitReason::kPanic);
  events.end.reset();
  put<uint8_t>(port, 0, 0);
  put<uint8_t>(port, 0, 255);
  EXPECT_FALSE(events.end);
  EXPECT_EQ(get<uint8_t>(port, 0), 0xff);
}

TEST(Platform, KeyboardPortResets) {
  Events events;
  KeyboardReset port(events);
  EXPECT_EQ(get<uint8_t>(port, 0), 0);  // input buffer empty: the kernel does not wait
  put<uint8_t>(port, 0, 0xd1);
  EXPECT_FALSE(events.end);
  put<uint8_t>(port, 0, 0xfe);
  EXPECT_EQ(events.end, ExitReason::kReset);
}

TEST(Platform, PowerRegisterTakesOneWordAtZero) {
  Events events;
  PowerRegister power(events);
  EXPECT_EQ(get<uint32_t>(power, 0), 0u);
  put<uint32_t>(power, 4, 1);
  put<uint8_t>(power, 0, 1);
  put<uint32_t>(power, 0, 2);
  EXPECT_FALSE(events.end);
  put<uint32_t>(power, 0, 1);
  EXPECT_EQ(events.end, ExitReason::kPowerOff);
}

TEST(Platform, PvpanicReportsPanicsOnly) {
  Events events;
  Pvpanic panic(events);
  EXPECT_EQ(get<uint8_t>(panic, 0), 1);
  put<uint8_t>(panic, 0, 2);
  EXPECT_FALSE(events.end);
  put<uint8_t>(panic, 0, 1);
  EXPECT_EQ(events.end, ExitReason::kPanic);
}

TEST(Platform, SerialWritesAndIsAlwaysReady) {
  const FdPair pipe = makePipe(O_NONBLOCK);
  SerialOutput serial(pipe.second.get());
  EXPECT_EQ(get<uint8_t>(serial, 5), 0x60);
  put<uint8_t>(serial, 0, 'h');
  put<uint8_t>(serial, 3, 0x80);  // the divisor is no output
  put<uint8_t>(serial, 0, 'x');
  put<uint8_t>(serial, 3, 0x03);
  put<uint8_t>(serial, 0, 'i');
  char text[8] = {};
  EXPECT_EQ(read(pipe.first.get(), text, sizeof text), 2);
  EXPECT_STREQ(text, "hi");
}

TEST(BoundedOutput, DropsWhatIsTooMuchInsteadOfWaiting) {
  const FdPair pipe = makePipe();  // blocking, and nobody reads
  virtio::BoundedOutput output(pipe.second.get());
  const std::string flood(256 << 10, 'x');
  for (int i = 0; i < 8; ++i) output.write(asBytes(flood));
  const Fd file = makeMemfd("console");
  virtio::BoundedOutput limited(file.get());
  for (int i = 0; i < 8; ++i) limited.write(asBytes(flood));
  EXPECT_GE(fileSize(file.get()), virtio::BoundedOutput::kBurstBytes);
  EXPECT_LT(fileSize(file.get()), 8 * flood.size());
}

}  // namespace
}  // namespace hull::vmm
