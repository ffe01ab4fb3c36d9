// Descriptions of disks come from a cache on disk: whatever is in it, decoding gives a sound
// description or kCorrupt, and a sound one encodes to the same bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "image/ext4/stitch.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    if (hull::image::encode(hull::image::decodeStitchedDisk(bytes)) != bytes) std::abort();
  } catch (const hull::Error& error) {
    if (error.kind() != hull::ErrorKind::kCorrupt) std::abort();
  }
  return 0;
}
