// An index that decodes must encode to the same bytes.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "image/layer/index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  hull::image::LayerIndex index;
  try {
    index = hull::image::decodeLayerIndex(bytes);
  } catch (const hull::Error&) {
    return 0;
  }
  if (hull::image::encode(index) != bytes) abort();
  return 0;
}
