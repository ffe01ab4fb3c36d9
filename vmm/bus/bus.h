// Address decoding: which register block answers a port or MMIO access. Filled while the machine is
// built, constant afterwards, asked by every vCPU thread. What nobody answers reads as all ones and
// swallows writes, as on a real bus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hull::vmm {

// A register block. `offset` is relative to its base; 1, 2, 4 or 8 bytes, any alignment, always
// inside the block. Called by vCPU threads, several at once.
class BusDevice {
 public:
  BusDevice() = default;
  virtual ~BusDevice() = default;
  BusDevice(const BusDevice&) = delete;
  BusDevice& operator=(const BusDevice&) = delete;
  virtual void read(uint64_t offset, std::span<std::byte> into) noexcept = 0;
  virtual void write(uint64_t offset, std::span<const std::byte> from) noexcept = 0;
};

class Bus {
 public:
  explicit Bus(std::string_view name) : name_(name) {}

  // Throws when the range is empty, wraps or overlaps another. Does not own the device.
  void attach(uint64_t base, uint64_t bytes, BusDevice& device);

  void read(uint64_t address, std::span<std::byte> into) const noexcept;
  void write(uint64_t address, std::span<const std::byte> from) const noexcept;

 private:
  struct Entry {
    uint64_t base;
    uint64_t bytes;
    BusDevice* device;
  };
  const Entry* find(uint64_t address, size_t size) const noexcept;
  void reportUnclaimed(bool is_write, uint64_t address, size_t size) const noexcept;

  std::string_view name_;
  std::vector<Entry> entries_;  // sorted by base
};

}  // namespace hull::vmm
