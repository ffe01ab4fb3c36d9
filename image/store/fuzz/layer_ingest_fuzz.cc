// Any bytes as a layer: refused with an Error, or an index that decodes, fits its data and comes
// back the same after being written as a tar again.
#include <fcntl.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "image/store/codec.h"
#include "image/store/layer_unpacker.h"

namespace {

using namespace hull;
using namespace hull::image;

LayerLimits smallLimits() {
  LayerLimits limits;
  limits.max_unpacked_bytes = 8 << 20;
  limits.max_entries = 10'000;
  return limits;
}

// The pipeline without its sync calls: thousands of inputs a second.
LayerIndex unpack(const std::string& folder, Source& tar) {
  static const LayerLimits limits = smallLimits();
  std::filesystem::remove_all(folder);
  makeDirectories(folder);
  LayerUnpacker unpacker(folder, limits);
  LimitedSource limited(tar, limits.max_unpacked_bytes);
  unpacker.unpack(limited, true);
  unpacker.writeOut();
  return decodeLayerIndex(readFile(folder + "/index"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TemporaryDirectory folder("hull-fuzz");
  LayerIndex index;
  try {
    StringSource bytes(std::string_view(reinterpret_cast<const char*>(data), size));
    DecodingSource tar(bytes);
    index = unpack(folder.path() + "/a", tar);
  } catch (const Error&) {
    return 0;
  }
  StringSink again;
  LayerTarWriter writer(again);
  const Fd content = openFile(folder.path() + "/a/data", O_RDONLY);
  for (const Entry& entry : index.entries) writer.add(entry, content.get());
  writer.finish();
  try {
    StringSource tar(again.text);
    if (encode(unpack(folder.path() + "/b", tar)) != encode(index)) abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kTooLarge) abort();
  }
  return 0;
}
