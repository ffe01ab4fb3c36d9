#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "registry/server/configuration.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  hull::registry::ServerOptions options;
  try {
    hull::registry::applyConfiguration({reinterpret_cast<const char*>(data), size}, options);
  } catch (const hull::Error&) {
  }
  return 0;
}
