// One unpacked layer: its entries (the index) and the bytes of its files (the data file). The index
// is written once, while the layer's tar streams by, and read whenever a disk is stitched. The data
// file holds each file's content at a kContentAlignment boundary and is padded to it, so that a
// disk can map it as a window. Pure values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hull::image {

inline constexpr uint64_t kContentAlignment = 4096;  // bytes; the ext4 block size of our disks
inline constexpr size_t kMaxNameBytes = 255;
inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxXattrBytes = 64 * 1024;  // all names and values of one entry
inline constexpr size_t kMaxEntriesPerLayer = 4'000'000;

enum class EntryType : uint8_t {
  kFile = 0,
  kDirectory = 1,
  kSymlink = 2,
  kHardlink = 3,  // to `link`, a path from the root of the layer's image
  kCharDevice = 4,
  kBlockDevice = 5,
  kFifo = 6,
  kWhiteout = 7,  // removes `path` of lower layers
  kOpaque = 8,    // hides all lower children of the directory `path`
};

struct Entry {
  // Cleaned: no leading slash, no "." or "..", no empty part; "" is the root. Any byte but NUL.
  std::string path;
  EntryType type = EntryType::kFile;
  uint16_t mode = 0;  // permission bits incl. setuid, setgid, sticky (07777)
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  uint64_t size = 0;         // files
  uint64_t data_offset = 0;  // files with size > 0: in the data file, aligned
  std::string link;          // symlink target verbatim; hardlink: cleaned path
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  // sorted by name
};

struct LayerIndex {
  std::vector<Entry> entries;  // in the tar's order; a later entry of the same path wins
  uint64_t data_bytes = 0;     // size of the data file, a multiple of kContentAlignment
};

std::string encode(const LayerIndex& index);
LayerIndex decodeLayerIndex(std::string_view bytes);  // throws kCorrupt

}  // namespace hull::image
