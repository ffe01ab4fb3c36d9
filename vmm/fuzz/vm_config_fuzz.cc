// The configuration parser: whatever it accepts must survive a round trip.
#include <cstdlib>

#include "base/error.h"
#include "vmm/config/vm_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  try {
    const auto config = vmm::parseVmConfig({reinterpret_cast<const char*>(data), size});
    const std::string text = vmm::toJson(config);
    if (vmm::toJson(vmm::parseVmConfig(text)) != text) abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalidArgument) abort();
  }
  return 0;
}
