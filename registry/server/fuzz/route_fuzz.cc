#include <cstdint>
#include <string_view>

#include "registry/server/message.h"
#include "registry/server/route.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using hull::registry::Endpoint;
  try {
    const auto route = hull::registry::parseRoute({reinterpret_cast<const char*>(data), size});
    // The name becomes a path: no component may leave the tree or hide in it.
    const bool named = route.endpoint != Endpoint::kBase && route.endpoint != Endpoint::kCatalog;
    if (named != hull::registry::isRepositoryName(route.repository)) __builtin_trap();
    if (("/" + route.repository + "/").find("/.") != std::string::npos) __builtin_trap();
    if (route.endpoint == Endpoint::kUpload &&
        route.reference.size() != hull::registry::kUploadIdDigits) {
      __builtin_trap();
    }
  } catch (const hull::registry::ApiError& error) {
    if (error.status() != 400 && error.status() != 404) __builtin_trap();
  }
  return 0;
}
