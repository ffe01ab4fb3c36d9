// The description of the machine that the guest kernel reads instead of ACPI: CPUs, interrupt
// controllers, virtio-mmio windows, power-off register, pvpanic. Built with libfdt.
// Pure function; throws hull::Error(kInternal) if it outgrows its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hull::vmm {

struct DeviceTreeDevice {
  uint64_t base = 0;  // below 4 GiB, layout::kVirtioBytes long
  uint32_t gsi = 0;
};

std::vector<std::byte> buildDeviceTree(uint32_t vcpus, const std::vector<DeviceTreeDevice>& virtio);

}  // namespace hull::vmm
