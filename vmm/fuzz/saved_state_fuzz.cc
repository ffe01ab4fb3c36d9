// A crafted state file: its container, the machine in it, and the devices that it makes, on memory
// that is the rest of the input. The check sum is put right, or nothing would come through.
#include <cstdlib>

#include "base/bytes.h"
#include "base/error.h"
#include "vmm/state/saved_machine.h"
#include "vmm/state/state_file.h"
#include "vmm/testing/saved_devices.h"

namespace {

using namespace hull;
using namespace hull::vmm;

void expectRefusal(const Error& error) {
  if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kNotSupported) abort();
}

void restoreDevices(const SavedMachine& machine, std::string_view memory) {
  static vmm::testing::DeviceHostSide host;
  constexpr GuestAddress kRings = vmm::testing::SavedDevices::kRings;
  vmm::testing::SavedDevices set(host);
  if (machine.devices.size() != set.devices.size()) return;
  memory = memory.substr(0, set.memory.bytes() - kRings);
  if (!set.memory.write(kRings, asBytes(memory))) abort();
  try {
    loadDevices(set.transports, machine.devices);
  } catch (const Error& error) {
    return expectRefusal(error);
  }
  set.work();
  saveDevices(set.devices, set.transports);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    openState(input);
  } catch (const Error& error) {
    expectRefusal(error);
  }
  ByteReader in(input);
  const std::string_view body = in.view(size);
  if (!in.ok()) return 0;
  const std::string file = sealState(body);
  if (openState(file) != body) abort();
  SavedMachine machine;
  try {
    machine = decode(body);
  } catch (const Error& error) {
    expectRefusal(error);
    return 0;
  }
  if (encode(machine) != body) abort();
  restoreDevices(machine, in.raw(in.remaining()));
  return 0;
}
