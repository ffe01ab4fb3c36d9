// The configuration parser and those of the control socket: whatever they accept must survive a
// round trip.
#include <cstdlib>

#include "base/error.h"
#include "vmm/config/vm_config.h"

namespace {

template <typename Parse>
void roundTrip(std::string_view input, Parse&& parse) {
  using namespace hull;
  try {
    const std::string text = vmm::toJson(parse(input));
    if (vmm::toJson(parse(text)) != text) abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalidArgument) abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::vmm;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  roundTrip(input, parseVmConfig);
  roundTrip(input, parseLimitsChange);
  roundTrip(input, parseDiskGrowth);
  roundTrip(input, parseDiskCut);
  return 0;
}
