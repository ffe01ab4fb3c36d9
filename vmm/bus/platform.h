// The few registers beside virtio: the ways a guest says that it is over, and an output-only serial
// port for debugging. All are stateless or nearly so; events go to a PlatformEvents.
//
// Owner: Machine. Called by vCPU threads, several at once.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "vmm/bus/bus.h"
#include "vmm/config/vm_config.h"
#include "vmm/virtio/console/console.h"

namespace hull::vmm {

// What the guest said. Any vCPU thread; the first final word counts.
class PlatformEvents {
 public:
  virtual ~PlatformEvents() = default;
  virtual void guestReady() noexcept = 0;
  virtual void guestEnds(ExitReason reason, std::string_view detail) noexcept = 0;
};

// kExitPort (vm_config.h): hull-init's own words.
class ExitPort final : public BusDevice {
 public:
  explicit ExitPort(PlatformEvents& events) : events_(events) {}
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

 private:
  PlatformEvents& events_;
};

// Port 0x64 of a PC's keyboard controller, as far as `reboot=k` needs it: the input buffer is
// always empty, command 0xfe pulses the reset line.
inline constexpr uint16_t kKeyboardPort = 0x64;
class KeyboardReset final : public BusDevice {
 public:
  explicit KeyboardReset(PlatformEvents& events) : events_(events) {}
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

 private:
  PlatformEvents& events_;
};

// "syscon-poweroff": writing kPowerOffValue to register 0 ends the VM. Reads as 0, because the
// kernel's regmap only writes what changes.
inline constexpr uint32_t kPowerOffValue = 1;
class PowerRegister final : public BusDevice {
 public:
  explicit PowerRegister(PlatformEvents& events) : events_(events) {}
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

 private:
  PlatformEvents& events_;
};

// "qemu,pvpanic-mmio": one byte of capabilities and events.
class Pvpanic final : public BusDevice {
 public:
  explicit Pvpanic(PlatformEvents& events) : events_(events) {}
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

 private:
  PlatformEvents& events_;
};

// A 16550 that is always ready to send and never receives (early_serial).
inline constexpr uint16_t kSerialPort = 0x3f8;
inline constexpr uint16_t kSerialPorts = 8;
class SerialOutput final : public BusDevice {
 public:
  explicit SerialOutput(int fd) : output_(fd) {}
  void read(uint64_t offset, std::span<std::byte> into) noexcept override;
  void write(uint64_t offset, std::span<const std::byte> from) noexcept override;

  // The registers; any values are as good as others.
  std::string save() const;
  bool load(std::string_view state);

 private:
  mutable std::mutex mutex_;
  virtio::BoundedOutput output_;
  uint8_t interrupt_enable_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
};

}  // namespace hull::vmm
