// A client's seccomp profile.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "daemon/engine/seccomp_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    (void)hull::engine::compileSeccomp({reinterpret_cast<const char*>(data), size}, 1);
  } catch (const hull::Error&) {
    // Refused.
  }
  return 0;
}
