// A hostile image's entries, as far as a decoded index lets them through: applying and stitching
// them ends with a disk or with one of the errors that blame the image. The input is a list of
// entries in a plain format of this file; type kNextLayer begins the next layer.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"
#include "image/ext4/stitch.h"

namespace {

using namespace hull;
using namespace hull::image;

constexpr uint8_t kNextLayer = 9;
constexpr size_t kMaxXattrs = 16;
constexpr uint64_t kDataBytes = 64 * kContentAlignment;

Entry readEntry(ByteReader& in, uint8_t type) {
  Entry entry;
  entry.type = static_cast<EntryType>(type);
  entry.path = in.string(kMaxPathBytes);
  entry.link = in.string(kMaxPathBytes);
  entry.mode = in.u16();
  entry.mtime_seconds = in.i64();
  entry.mtime_nanoseconds = in.u32();
  entry.size = in.u64();
  entry.data_offset = in.u64();
  entry.device_major = in.u32();
  entry.device_minor = in.u32();
  for (size_t count = in.u8() % kMaxXattrs; count > 0 && in.ok(); --count) {
    std::string name = in.string(kMaxXattrBytes);
    entry.xattrs.emplace_back(std::move(name), in.string(kMaxXattrBytes));
  }
  return entry;
}

std::vector<LayerIndex> readLayers(std::string_view bytes) {
  ByteReader in(bytes);
  std::vector<LayerIndex> layers(1);
  while (in.ok() && !in.atEnd()) {
    const auto type = static_cast<uint8_t>(in.u8() % (kNextLayer + 1));
    if (type == kNextLayer)
      layers.emplace_back();
    else
      layers.back().entries.push_back(readEntry(in, type));
  }
  return layers;
}

bool blamesTheImage(ErrorKind kind) {
  return kind == ErrorKind::kCorrupt || kind == ErrorKind::kTooLarge ||
         kind == ErrorKind::kNotSupported;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Fd metadata = makeMemfd("metadata");
  const auto layers = readLayers({reinterpret_cast<const char*>(data), size});
  try {
    Tree tree(10'000);
    for (const LayerIndex& layer : layers) tree.apply(layer);
    for (const LayerIndex& layer : layers) {
      for (const Entry& entry : layer.entries) {
        tree.resolve(entry.path);
        tree.resolve(tree.resolvePath(entry.path), false);
      }
    }
    const StitchedDisk disk =
        stitch(tree, std::vector<uint64_t>(layers.size(), kDataBytes), metadata.get());
    decodeStitchedDisk(encode(disk));
  } catch (const Error& error) {
    if (!blamesTheImage(error.kind())) std::abort();
  }
  return 0;
}
