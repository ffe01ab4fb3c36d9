// Any bytes as an image archive: refused with an Error, recording nothing, or loaded.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "image/archive/archive.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::image;
  static const TemporaryDirectory folder("hull-fuzz");
  static ImageStore* const store = [] {
    LayerLimits limits;
    limits.max_unpacked_bytes = 8 << 20;
    return new ImageStore(folder.path() + "/store", limits);  // lives as long as the process
  }();
  StringSource source(std::string_view(reinterpret_cast<const char*>(data), size));
  try {
    for (const Image& image : loadArchive(*store, source)) {
      store->remove(image.id.text(), true, {});
    }
  } catch (const Error&) {
    if (!store->list().empty()) abort();
  }
  return 0;
}
