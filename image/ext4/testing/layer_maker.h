// Layers and trees put together by hand. For tests.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "image/layer/index.h"
#include "image/layer/tree.h"

namespace hull::image::testing {

inline constexpr uint64_t kBlock = kContentAlignment;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

inline Entry entry(EntryType type, std::string path) {
  Entry made;
  made.type = type;
  made.path = std::move(path);
  made.mode = 0644;
  return made;
}

// A layer put together by hand; content is laid out in the order of the calls.
struct LayerMaker {
  LayerIndex index;

  Entry& add(Entry made) { return index.entries.emplace_back(std::move(made)); }
  Entry& directory(std::string path) {
    Entry& made = add(entry(EntryType::kDirectory, std::move(path)));
    made.mode = 0755;
    return made;
  }
  Entry& file(std::string path, uint64_t size = 0) {
    Entry& made = add(entry(EntryType::kFile, std::move(path)));
    made.size = size;
    made.data_offset = size ? index.data_bytes : 0;
    index.data_bytes += (size + kBlock - 1) / kBlock * kBlock;
    return made;
  }
  Entry& symlink(std::string path, std::string to) {
    Entry& made = add(entry(EntryType::kSymlink, std::move(path)));
    made.link = std::move(to);
    made.mode = 0777;
    return made;
  }
  Entry& hardlink(std::string path, std::string to) {
    Entry& made = add(entry(EntryType::kHardlink, std::move(path)));
    made.link = std::move(to);
    return made;
  }
};

inline Tree treeOf(const std::vector<LayerIndex>& layers) {
  Tree tree;
  for (const LayerIndex& layer : layers) tree.apply(layer);
  return tree;
}

inline std::vector<uint64_t> dataBytes(const std::vector<LayerIndex>& layers) {
  std::vector<uint64_t> sizes;
  for (const LayerIndex& layer : layers) sizes.push_back(layer.data_bytes);
  return sizes;
}

// An ACL as setxattr(2) takes it, of tags, permissions and ids (linux/posix_acl_xattr.h).
inline std::string acl(std::initializer_list<std::tuple<uint16_t, uint16_t, uint32_t>> entries) {
  std::string made("\2\0\0\0", 4);
  const auto append = [&](auto value) {
    made.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const auto& [tag, permissions, id] : entries) {
    append(tag);
    append(permissions);
    append(id);
  }
  return made;
}

}  // namespace hull::image::testing
