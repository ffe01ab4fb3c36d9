#include "vmm/bus/platform.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace hull::vmm {

namespace {

uint8_t firstByte(std::span<const std::byte> bytes) {
  return std::to_integer<uint8_t>(bytes[0]);
}
void fill(std::span<std::byte> into, uint8_t value) {
  std::fill(into.begin(), into.end(), std::byte{0});
  into[0] = std::byte{value};
}

}  // namespace

void ExitPort::read(uint64_t, std::span<std::byte> into) noexcept {
  std::memset(into.data(), 0xff, into.size());
}

void ExitPort::write(uint64_t, std::span<const std::byte> from) noexcept {
  switch (static_cast<ExitPortValue>(firstByte(from))) {
    case ExitPortValue::kReady:
      return events_.guestReady();
    case ExitPortValue::kPowerOff:
      return events_.guestEnds(ExitReason::kPowerOff, "the guest's init ended");
    case ExitPortValue::kReset:
      return events_.guestEnds(ExitReason::kReset, "the guest's init asked for a restart");
    case ExitPortValue::kPanic:
      return events_.guestEnds(ExitReason::kPanic, "the guest's init gave up");
  }
}

void KeyboardReset::read(uint64_t, std::span<std::byte> into) noexcept {
  fill(into, 0);
}

void KeyboardReset::write(uint64_t, std::span<const std::byte> from) noexcept {
  constexpr uint8_t kPulseReset = 0xfe;
  if (firstByte(from) == kPulseReset) {
    events_.guestEnds(ExitReason::kReset, "the guest kernel asked for a restart");
  }
}

void PowerRegister::read(uint64_t, std::span<std::byte> into) noexcept {
  fill(into, 0);
}

void PowerRegister::write(uint64_t offset, std::span<const std::byte> from) noexcept {
  uint32_t value = 0;
  if (offset != 0 || from.size() != sizeof value) return;
  std::memcpy(&value, from.data(), sizeof value);
  if (value == kPowerOffValue) {
    events_.guestEnds(ExitReason::kPowerOff, "the guest kernel powered off");
  }
}

// QEMU's docs/specs/pvpanic: bit 0 panicked, bit 1 a crash kernel takes over.
void Pvpanic::read(uint64_t, std::span<std::byte> into) noexcept {
  constexpr uint8_t kCapabilities = 1;
  fill(into, kCapabilities);
}

void Pvpanic::write(uint64_t, std::span<const std::byte> from) noexcept {
  constexpr uint8_t kPanicked = 1;
  if ((firstByte(from) & kPanicked) != 0) {
    events_.guestEnds(ExitReason::kPanic, "the guest kernel panicked");
  }
}

namespace {

enum SerialRegister : uint64_t {
  kData = 0,
  kInterruptEnable = 1,
  kInterruptIdentify = 2,
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};
constexpr uint8_t kDivisorLatch = 0x80;      // in line control
constexpr uint8_t kTransmitterEmpty = 0x60;  // THRE | TEMT
constexpr uint8_t kNoInterrupt = 0x01;
constexpr uint8_t kCarrier = 0xb0;  // DCD | DSR | CTS

}  // namespace

void SerialOutput::read(uint64_t offset, std::span<std::byte> into) noexcept {
  const std::lock_guard lock(mutex_);
  const bool latch = (line_control_ & kDivisorLatch) != 0;
  switch (offset) {
    case kInterruptEnable:
      return fill(into, latch ? uint8_t{0} : interrupt_enable_);
    case kInterruptIdentify:
      return fill(into, kNoInterrupt);
    case kLineControl:
      return fill(into, line_control_);
    case kModemControl:
      return fill(into, modem_control_);
    case kLineStatus:
      return fill(into, kTransmitterEmpty);
    case kModemStatus:
      return fill(into, kCarrier);
    case kScratch:
      return fill(into, scratch_);
    default:
      return fill(into, 0);
  }
}

void SerialOutput::write(uint64_t offset, std::span<const std::byte> from) noexcept {
  const std::lock_guard lock(mutex_);
  const bool latch = (line_control_ & kDivisorLatch) != 0;
  const uint8_t value = firstByte(from);
  switch (offset) {
    case kData:
      if (!latch) output_.write(from.first(1));
      return;
    case kInterruptEnable:
      if (!latch) interrupt_enable_ = value & 0x0f;
      return;
    case kLineControl:
      line_control_ = value;
      return;
    case kModemControl:
      modem_control_ = value & 0x1f;
      return;
    case kScratch:
      scratch_ = value;
      return;
    default:
      return;
  }
}

std::string SerialOutput::save() const {
  const std::lock_guard lock(mutex_);
  ByteWriter out;
  for (const uint8_t value : {interrupt_enable_, line_control_, modem_control_, scratch_}) {
    out.u8(value);
  }
  return out.take();
}

bool SerialOutput::load(std::string_view state) {
  const std::lock_guard lock(mutex_);
  ByteReader in(state);
  interrupt_enable_ = in.u8();
  line_control_ = in.u8();
  modem_control_ = in.u8();
  scratch_ = in.u8();
  return in.complete();
}

}  // namespace hull::vmm
