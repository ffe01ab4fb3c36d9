#include "image/layer/testing/random_layers.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "image/layer/testing/plain_tree.h"

namespace hull::image::testing {
namespace {

class Generator {
 public:
  Generator(uint64_t seed, const RandomShape& shape) : random_(seed), shape_(shape) {
    for (size_t i = 0; i < shape.names; ++i) names_.push_back(makeName(i));
  }

  std::vector<LayerIndex> layers() {
    std::vector<LayerIndex> made;
    for (size_t i = 0; i < shape_.layers; ++i) {
      made.emplace_back();
      for (size_t k = 0; k < shape_.entries_per_layer; ++k) addEntry(made);
    }
    return made;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }
  bool oneIn(uint64_t n) { return below(n) == 0; }

  std::string makeName(size_t index) {
    if (!shape_.odd_names)
      return std::string(1, static_cast<char>('a' + index % 26)) +
             (index < 26 ? "" : std::to_string(index / 26));
    std::string name(oneIn(3) ? 255 : 1 + below(20), 'x');
    for (char& c : name) {
      do c = static_cast<char>(below(256));
      while (c == '/' || c == '\0');
    }
    return name == "." || name == ".." ? "dots" : name;
  }

  std::string path() {
    std::string made;
    for (size_t parts = 1 + below(shape_.depth); parts > 0; --parts)
      made += (made.empty() ? "" : "/") + names_[below(names_.size())];
    return made;
  }

  std::string bytes(size_t size) {
    std::string made(size, '\0');
    for (char& c : made) c = static_cast<char>(below(256));
    return made;
  }

  void addXattrs(Entry& entry) {
    if (!oneIn(3)) return;
    std::map<std::string, std::string> made;
    static const char* const kPrefixes[] = {"user.", "trusted.", "security."};
    for (uint64_t count = 1 + below(4); count > 0; --count)
      made[kPrefixes[below(3)] + std::string("n") + std::to_string(below(30))] =
          bytes(oneIn(4) ? below(700) : below(30));
    entry.xattrs.assign(made.begin(), made.end());
  }

  void setAttributes(Entry& entry) {
    entry.mode = static_cast<uint16_t>(below(07777 + 1));
    entry.uid = static_cast<uint32_t>(oneIn(3) ? below(uint64_t{1} << 32) : below(3000));
    entry.gid = static_cast<uint32_t>(oneIn(3) ? below(uint64_t{1} << 32) : below(3000));
    static constexpr int64_t kTimes[] = {0,          1,          -1,         -2147483648LL,
                                         2147483647, 2147483648, 4294967296, 10737418239};
    entry.mtime_seconds = oneIn(2) ? kTimes[below(8)] : static_cast<int64_t>(below(1700000000));
    entry.mtime_nanoseconds = static_cast<uint32_t>(below(1000000000));
    addXattrs(entry);
  }

  void addEntry(std::vector<LayerIndex>& layers) {
    LayerIndex& layer = layers.back();
    Entry entry;
    entry.path = path();
    const uint64_t kind = below(20);
    if (kind < 6) {
      entry.type = EntryType::kFile;
      entry.size = oneIn(5) ? 0 : below(shape_.max_file_bytes);
      entry.data_offset = entry.size ? layer.data_bytes : 0;
      layer.data_bytes +=
          (entry.size + kContentAlignment - 1) / kContentAlignment * kContentAlignment;
    } else if (kind < 11) {
      entry.type = EntryType::kDirectory;
      if (oneIn(10)) entry.path.clear();
    } else if (kind < 13) {
      entry.type = EntryType::kSymlink;
      entry.link = oneIn(4) ? std::string(1 + below(4095), 's') : "../" + path();
    } else if (kind < 14) {
      entry.type = oneIn(2) ? EntryType::kCharDevice : EntryType::kBlockDevice;
      entry.device_major = static_cast<uint32_t>(oneIn(2) ? below(4096) : below(256));
      entry.device_minor = static_cast<uint32_t>(oneIn(2) ? below(1 << 20) : below(256));
    } else if (kind < 15) {
      entry.type = EntryType::kFifo;
    } else if (kind < 17) {
      entry.type = EntryType::kWhiteout;
    } else if (kind < 18) {
      entry.type = EntryType::kOpaque;
      if (oneIn(10)) entry.path.clear();
    } else {
      if (!pickTarget(layers, entry)) return;
    }
    if (entry.type < EntryType::kWhiteout && entry.type != EntryType::kHardlink)
      setAttributes(entry);
    layer.entries.push_back(std::move(entry));
    // An opaque marker that comes late may take a hardlink's target away from under it.
    if (layer.entries.back().type == EntryType::kOpaque && !applies(layers))
      layer.entries.pop_back();
  }

  static bool applies(const std::vector<LayerIndex>& layers) {
    try {
      applyPlainly(layers);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  bool pickTarget(const std::vector<LayerIndex>& layers, Entry& entry) {
    std::vector<std::string> targets;
    for (const auto& [path, node] : applyPlainly(layers))
      if (node->attributes.type != EntryType::kDirectory) targets.push_back(path);
    if (targets.empty()) return false;
    entry.type = EntryType::kHardlink;
    entry.link = targets[below(targets.size())];
    return true;
  }

  std::mt19937_64 random_;
  RandomShape shape_;
  std::vector<std::string> names_;
};

}  // namespace

std::vector<LayerIndex> randomLayers(uint64_t seed, const RandomShape& shape) {
  return Generator(seed, shape).layers();
}

}  // namespace hull::image::testing
