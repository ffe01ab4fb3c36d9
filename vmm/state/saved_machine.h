// A whole VM without its memory, as plain data: what is put into a state file and taken from one.
// Decoding checks every size and count; a value that only means something to a device or to KVM is
// checked by them when it is applied, in a process that is in its jail by then.
//
// Owner: whoever saves or restores. Device thread (save) or main thread before any vCPU (restore).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/kvm/vcpu_state.h"
#include "vmm/kvm/vm_state.h"
#include "vmm/state/memory_file.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/mmio/transport.h"

namespace hull::vmm {

// One virtio device behind its transport. Type and configuration space say whether the device of
// another process is the same: a disk of the same size, a network card with the same address.
struct SavedDevice {
  uint32_t type = 0;
  std::string config;
  std::string state;
};

struct SavedMachine {
  SaveId id{};
  uint64_t memory_bytes = 0;
  bool guest_ready = false;           // it said so at the exit port
  std::optional<std::string> serial;  // registers of the serial port, if there is one
  VmState vm;
  std::vector<VcpuState> vcpus;
  std::vector<SavedDevice> devices;  // by slot
};

std::string encode(const SavedMachine& machine);
// Throws kCorrupt.
SavedMachine decode(std::string_view body);

using Devices = std::vector<std::unique_ptr<virtio::Device>>;
using Transports = std::vector<std::unique_ptr<virtio::MmioTransport>>;

// Throws kNotSupported when there is a device that cannot be saved; changes nothing.
void requireSavable(const Devices& devices);

// All vCPUs stand still. Ends what the devices have under way: memory is to be saved afterwards.
std::vector<SavedDevice> saveDevices(const Devices& devices, const Transports& transports);

// Devices fresh from their constructors, memory as it was saved. requireSame throws
// kInvalidArgument when they are not the same ones; loadDevices throws kCorrupt, and then the
// devices are in no defined state.
void requireSame(const Devices& devices, const std::vector<SavedDevice>& saved);
void loadDevices(const Transports& transports, const std::vector<SavedDevice>& saved);

}  // namespace hull::vmm
