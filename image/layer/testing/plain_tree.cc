#include "image/layer/testing/plain_tree.h"

#include <stdexcept>

namespace hull::image::testing {
namespace {

bool isBelow(const std::string& path, const std::string& directory) {
  if (path.empty()) return false;
  return directory.empty() || path.starts_with(directory + "/");
}

std::string parentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

void removeWithBelow(PlainTree& tree, const std::string& path) {
  std::erase_if(tree,
                [&](const auto& item) { return item.first == path || isBelow(item.first, path); });
}

std::shared_ptr<PlainNode> impliedDirectory() {
  auto node = std::make_shared<PlainNode>();
  node->attributes.type = EntryType::kDirectory;
  node->attributes.mode = 0755;
  return node;
}

void requireDirectory(PlainTree& tree, const std::string& path) {
  if (path.empty()) return;
  requireDirectory(tree, parentOf(path));
  const auto there = tree.find(path);
  if (there != tree.end() && there->second->attributes.type == EntryType::kDirectory) return;
  removeWithBelow(tree, path);
  tree[path] = impliedDirectory();
}

void applyOne(PlainTree& tree, const Entry& entry, uint32_t layer) {
  if (entry.type == EntryType::kOpaque) return;
  if (entry.type == EntryType::kWhiteout) {
    const auto parent = tree.find(parentOf(entry.path));
    if (parent != tree.end()) removeWithBelow(tree, entry.path);
    return;
  }
  auto node = std::make_shared<PlainNode>(PlainNode{entry, layer});
  if (entry.type == EntryType::kHardlink) {
    const auto target = tree.find(entry.link);
    if (target == tree.end()) throw std::runtime_error("no target " + entry.link);
    node = target->second;
  }
  if (!entry.path.empty()) requireDirectory(tree, parentOf(entry.path));
  const auto there = tree.find(entry.path);
  const bool both_directories = there != tree.end() && entry.type == EntryType::kDirectory &&
                                there->second->attributes.type == EntryType::kDirectory;
  if (!both_directories) removeWithBelow(tree, entry.path);
  tree[entry.path] = node;
}

}  // namespace

PlainTree applyPlainly(const std::vector<LayerIndex>& layers) {
  PlainTree tree;
  tree[""] = impliedDirectory();
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    for (const Entry& entry : layers[layer].entries) {
      if (entry.type != EntryType::kOpaque) continue;
      std::erase_if(tree, [&](const auto& item) { return isBelow(item.first, entry.path); });
    }
    for (const Entry& entry : layers[layer].entries) applyOne(tree, entry, layer);
  }
  return tree;
}

}  // namespace hull::image::testing
