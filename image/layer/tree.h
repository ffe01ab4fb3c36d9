// The file tree that a stack of layers makes: whiteouts and overrides applied, hardlinks resolved
// to shared inodes. Input of the disk stitcher, of COPY in builds and of user lookups; nothing here
// touches a host file system. One thread at a time while building; then read-only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/layer/index.h"

namespace hull::image {

using InodeNumber = uint32_t;  // index into Tree::inodes(); 0 is the root directory
inline constexpr InodeNumber kNoInode = ~InodeNumber{0};
inline constexpr int kMaxSymlinkHops = 40;

struct Inode {
  EntryType type = EntryType::kDirectory;  // never kHardlink, kWhiteout, kOpaque
  uint16_t mode = 0755;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  uint64_t size = 0;
  uint32_t layer = 0;        // whose data file holds the content (index into the stack)
  uint64_t data_offset = 0;  // in that data file
  std::string link;          // symlink target
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
  uint32_t links = 1;                                        // names in the tree (directories: 1)
  std::map<std::string, InodeNumber, std::less<>> children;  // directories
};

class Tree {
 public:
  Tree();  // an empty root directory

  // Applies the next layer on top, with number 0, 1, … in order of the calls.
  void apply(const LayerIndex& layer);

  const std::vector<Inode>& inodes() const { return inodes_; }  // unlinked ones have links == 0
  const Inode& at(InodeNumber number) const { return inodes_[number]; }
  uint32_t layerCount() const { return layers_; }

  // Exact path, no symlink followed; kNoInode when absent.
  InodeNumber find(std::string_view path) const;
  // As the kernel would inside this root: symlinks followed (also the last when `follow_last`),
  // ".." stops at the root. kNoInode when absent or after kMaxSymlinkHops.
  InodeNumber resolve(std::string_view path, bool follow_last = true) const;
  // The cleaned path that `path` means after following symlinks in all existing parts; parts that
  // do not exist are kept as they are. Used for COPY destinations.
  std::string resolvePath(std::string_view path, bool follow_last = true) const;

 private:
  std::vector<Inode> inodes_;
  uint32_t layers_ = 0;
};

}  // namespace hull::image
