// ImageStore's trees and stitched disks, and the collection of what nothing names.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "image/store/abandoned.h"
#include "image/store/image_state.h"

namespace hull::image {

namespace fs = std::filesystem;

namespace {

// <root>/disks/<key>/: the stitched disk's description, its metadata, and what it is made of.
constexpr const char* kDiskFile = "/disk";
constexpr const char* kMetadataFile = "/meta";
constexpr const char* kLayersFile = "/layers";

std::string layerList(const std::vector<Digest>& diff_ids) {
  std::string text;
  for (const Digest& diff_id : diff_ids) text += diff_id.text() + "\n";
  return text;
}

void writeSynced(const std::string& path, std::string_view contents) {
  const Fd fd = openFile(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  inContext("write " + path, [&] { writeFull(fd.get(), contents); });
  if (fsync(fd.get()) < 0) throw sysError("sync " + path);
}

RootDisk assemble(const StitchedDisk& disk, const std::string& folder,
                  const std::vector<std::string>& data_paths) {
  RootDisk result;
  result.disk_bytes = disk.disk_bytes;
  for (const StitchedSegment& segment : disk.segments) {
    const bool metadata = segment.layer == StitchedSegment::kMetadata;
    if (!metadata && segment.layer >= data_paths.size()) {
      throw Error(ErrorKind::kCorrupt, "the disk names a layer that it does not have");
    }
    result.segments.push_back({metadata ? folder + kMetadataFile : data_paths[segment.layer],
                               segment.file_offset, segment.disk_offset, segment.length});
  }
  return result;
}

}  // namespace

Tree ImageStore::tree(const Image& image) const {
  return treeOf(image.config.diff_ids);
}

Tree ImageStore::treeOf(const std::vector<Digest>& diff_ids) const {
  Tree tree;
  for (const Digest& diff_id : diff_ids) tree.apply(state_->layers.index(diff_id));
  return tree;
}

RootDisk ImageStore::rootDisk(const std::vector<Digest>& diff_ids) {
  State& state = *state_;
  const auto pin = pinLayers(diff_ids);
  std::vector<std::string> paths;
  std::vector<uint64_t> sizes;
  for (const Digest& diff_id : diff_ids) {
    paths.push_back(state.layers.dataPath(diff_id));
    sizes.push_back(state.layers.dataBytes(diff_id));
  }
  const std::string folder = state.diskFolder(diff_ids);
  const KeyLocks::Held held(state.stitching, folder);
  const auto cached = [&] {
    return assemble(decodeStitchedDisk(readFile(folder + kDiskFile)), folder, paths);
  };
  if (fileExists(folder + kDiskFile)) {
    try {
      return cached();
    } catch (const Error& error) {
      log::warning("root disk " + folder + " is damaged, making it anew: " + error.what());
      removeFolder(folder);
    }
  }
  PendingFolder pending(state.root, state.root + "/disks");
  const Fd metadata = openFile(pending.path() + kMetadataFile, O_RDWR | O_CREAT | O_EXCL, 0600);
  const StitchedDisk disk = stitch(treeOf(diff_ids), sizes, metadata.get());
  if (fsync(metadata.get()) < 0) throw sysError("sync root disk");
  writeSynced(pending.path() + kDiskFile, encode(disk));
  writeSynced(pending.path() + kLayersFile, layerList(diff_ids));
  pending.publish(folder);
  return cached();
}

namespace {

struct Named {
  std::set<Digest> blobs, layers;
  std::set<std::string> disks;  // folders
};

bool allPinned(const std::set<Digest>& pins, const std::string& list) {
  size_t begin = 0;
  bool any = false;
  for (size_t end = list.find('\n'); end != std::string::npos; end = list.find('\n', begin)) {
    if (!pins.contains(Digest::parse(list.substr(begin, end - begin)))) return false;
    any = true;
    begin = end + 1;
  }
  return any;
}

uint64_t folderBytes(const std::string& path) {
  uint64_t total = 0;
  std::error_code gone;
  for (const auto& item : fs::directory_iterator(path, gone)) total += item.file_size(gone);
  return total;
}

}  // namespace

ImageStore::Collected ImageStore::collectGarbage() {
  State& state = *state_;
  const auto alone = state.layers.pins().collect();
  // In this order: an add that records its image and lets go in between is seen by one of the two.
  const std::set<Digest> pins = state.layers.pins().pinned();
  Named named;
  {
    const auto lock = state.database.lock();
    std::map<std::string, std::vector<Digest>> stacks;
    Statement image = state.database.prepare("SELECT id, manifest FROM images");
    while (image.step()) {
      named.blobs.insert(Digest::parse(image.text(0)));
      named.blobs.insert(Digest::parse(image.text(1)));
      stacks[image.text(0)];
    }
    Statement layer = state.database.prepare(
        "SELECT image, blob, diff_id FROM image_layers ORDER BY image, position");
    while (layer.step()) {
      named.blobs.insert(Digest::parse(layer.text(1)));
      const Digest diff_id = Digest::parse(layer.text(2));
      named.layers.insert(diff_id);
      stacks[layer.text(0)].push_back(diff_id);
    }
    for (const auto& [id, stack] : stacks) named.disks.insert(state.diskFolder(stack));
  }

  Collected collected;
  std::vector<Digest> blobs, layers;
  state.blobs.forEach([&](const Digest& digest, uint64_t size) {
    if (named.blobs.contains(digest) || pins.contains(digest)) return;
    blobs.push_back(digest);
    collected.bytes += size;
  });
  for (const Digest& blob : blobs) state.blobs.remove(blob);
  state.layers.forEach([&](const Digest& diff_id) {
    if (named.layers.contains(diff_id) || pins.contains(diff_id)) return;
    layers.push_back(diff_id);
    collected.bytes += state.layers.dataBytes(diff_id);
  });
  for (const Digest& layer : layers) state.layers.remove(layer);
  for (const auto& item : fs::directory_iterator(state.root + "/disks")) {
    const std::string path = item.path().string();
    if (item.path().filename().string().starts_with('.') || named.disks.contains(path)) continue;
    if (fileExists(path + kLayersFile) && allPinned(pins, readFile(path + kLayersFile))) continue;
    collected.bytes += folderBytes(path);
    removeFolder(path);
  }
  collected.blobs = blobs.size();
  collected.layers = layers.size();
  const auto lock = state.database.lock();
  Statement forget = state.database.prepare("DELETE FROM unpacked WHERE blob=? OR diff_id=?");
  for (const Digest& blob : blobs) forget.bind(blob.text()).bind("").run();
  for (const Digest& layer : layers) forget.bind("").bind(layer.text()).run();
  return collected;
}

}  // namespace hull::image
