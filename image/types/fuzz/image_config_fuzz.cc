// Whatever parses must parse again from what we write, to the same text.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "image/types/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace image = hull::image;
  image::ImageConfig config;
  try {
    config = image::parseImageConfig(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const hull::Error&) {
    return 0;
  }
  const std::string text = image::toJson(config);
  if (text.size() <= image::kMaxConfigBytes && toJson(image::parseImageConfig(text)) != text) {
    abort();
  }
  return 0;
}
