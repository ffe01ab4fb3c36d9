// Whatever parses must parse again from what we write.
#include <cstdint>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "image/types/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace image = hull::image;
  std::variant<image::Manifest, image::Index> document;
  try {
    document = image::parseManifest(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const hull::Error&) {
    return 0;
  }
  std::visit(
      [](const auto& parsed) {
        const std::string text = image::toJson(parsed);
        if (text.size() <= image::kMaxManifestBytes) image::parseManifest(text, parsed.media_type);
      },
      document);
  return 0;
}
