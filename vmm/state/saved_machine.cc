#include "vmm/state/saved_machine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "vmm/config/vm_config.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

constexpr size_t kMaxDeviceConfigBytes = 4096;
constexpr size_t kMaxDeviceStateBytes = 4096;
constexpr size_t kMaxSerialBytes = 64;

std::string_view nameOf(uint32_t type) {
  switch (static_cast<virtio::DeviceType>(type)) {
    case virtio::DeviceType::kNet:
      return "network";
    case virtio::DeviceType::kBlock:
      return "disk";
    case virtio::DeviceType::kConsole:
      return "console";
    case virtio::DeviceType::kRng:
      return "random numbers";
    case virtio::DeviceType::kBalloon:
      return "balloon";
    case virtio::DeviceType::kVsock:
      return "vsock";
    case virtio::DeviceType::kFs:
      return "shared folders";
  }
  return "unknown";
}

uint32_t typeOf(const virtio::Device& device) {
  return static_cast<uint32_t>(device.type());
}

std::string configOf(const virtio::Device& device) {
  const auto bytes = device.config();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

SavedDevice takeDevice(ByteReader& in) {
  SavedDevice device;
  device.type = in.u32();
  device.config = in.string(kMaxDeviceConfigBytes);
  device.state = in.string(kMaxDeviceStateBytes);
  return device;
}

// A count that cannot be true is no reason to allocate for it.
template <typename Take>
void takeEach(ByteReader& in, uint32_t limit, Take&& take) {
  const uint32_t count = in.u32();
  if (count > limit) in.fail();
  for (uint32_t i = 0; i < count && in.ok(); ++i) take();
}

}  // namespace

std::string encode(const SavedMachine& machine) {
  ByteWriter out;
  out.raw({reinterpret_cast<const char*>(machine.id.data()), machine.id.size()});
  out.u64(machine.memory_bytes);
  out.boolean(machine.guest_ready);
  out.boolean(machine.serial.has_value());
  if (machine.serial) out.string(*machine.serial);
  put(out, machine.vm);
  out.u32(static_cast<uint32_t>(machine.vcpus.size()));
  for (const VcpuState& vcpu : machine.vcpus) put(out, vcpu);
  out.u32(static_cast<uint32_t>(machine.devices.size()));
  for (const SavedDevice& device : machine.devices) {
    out.u32(device.type);
    out.string(device.config);
    out.string(device.state);
  }
  return out.take();
}

SavedMachine decode(std::string_view body) {
  ByteReader in(body);
  SavedMachine machine;
  const std::string_view id = in.raw(machine.id.size());
  if (in.ok()) std::memcpy(machine.id.data(), id.data(), id.size());
  machine.memory_bytes = in.u64();
  machine.guest_ready = in.boolean();
  if (in.boolean()) machine.serial = in.string(kMaxSerialBytes);
  machine.vm = takeVmState(in);
  takeEach(in, kMaxVcpus, [&] { machine.vcpus.push_back(takeVcpuState(in)); });
  takeEach(in, layout::kMaxVirtioDevices, [&] { machine.devices.push_back(takeDevice(in)); });
  if (!in.complete()) {
    throw Error(ErrorKind::kCorrupt, "read the saved state: its contents make no sense");
  }
  return machine;
}

void requireSavable(const Devices& devices) {
  for (const auto& device : devices) {
    if (device->canSave()) continue;
    throw Error(ErrorKind::kNotSupported,
                fmt::format("save: the VM has {}, which cannot be saved (start it without)",
                            nameOf(typeOf(*device))));
  }
}

std::vector<SavedDevice> saveDevices(const Devices& devices, const Transports& transports) {
  std::vector<SavedDevice> saved;
  for (size_t slot = 0; slot < devices.size(); ++slot) {
    ByteWriter out;
    transports[slot]->save(out);
    saved.push_back({typeOf(*devices[slot]), configOf(*devices[slot]), out.take()});
  }
  return saved;
}

void requireSame(const Devices& devices, const std::vector<SavedDevice>& saved) {
  if (devices.size() != saved.size()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("restore: the saved VM has {} devices, this one {}", saved.size(),
                            devices.size()));
  }
  for (size_t slot = 0; slot < devices.size(); ++slot) {
    const virtio::Device& device = *devices[slot];
    if (typeOf(device) == saved[slot].type && configOf(device) == saved[slot].config) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("restore: device {} ({}) is another than in the saved VM ({}): give it "
                            "the same disks, networks and addresses",
                            slot, nameOf(typeOf(device)), nameOf(saved[slot].type)));
  }
}

void loadDevices(const Transports& transports, const std::vector<SavedDevice>& saved) {
  for (size_t slot = 0; slot < transports.size(); ++slot) {
    ByteReader in(saved[slot].state);
    if (transports[slot]->load(in) && in.complete()) continue;
    throw Error(ErrorKind::kCorrupt, fmt::format("restore: the state of device {} ({}) is wrong",
                                                 slot, nameOf(saved[slot].type)));
  }
}

}  // namespace hull::vmm
