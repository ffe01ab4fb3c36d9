// The file tree that a stack of layers makes: whiteouts and overrides applied, hardlinks resolved
// to shared inodes. Input of the disk stitcher, of COPY in builds and of user lookups; nothing here
// touches a host file system. One thread at a time while building; then read-only.
//
// What a layer's entries mean, in their order in the tar:
//  - An opaque marker hides what lower layers put into the directory and nothing of its own layer,
//    wherever in the tar it stands.
//  - A whiteout removes the name as it is at that point: what lower layers put there, and what its
//    own layer put there before it. What its own layer adds after it stays.
//  - A directory over a directory replaces the attributes and keeps the children. Anything else
//    replaces what has the name, with everything below it. Of two entries with one path the last
//    wins.
//  - Missing parents are made: 0755, root, time 0. A parent that is there but is no directory, a
//    symlink included, is replaced by one; no entry is ever placed through a symlink.
//  - A hardlink names an inode of any layer so far, its path starting at the root. Its own
//    attributes are ignored: they are the inode's.
//  - A whiteout or marker that meets nothing does nothing.
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
inline constexpr int kMaxSymlinkHops = 40;  // as in the kernel
// Inodes of one tree, implied parents included: bounds what hostile paths ("a/a/a/…") can make.
inline constexpr size_t kMaxTreeInodes = 8'000'000;

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
  explicit Tree(size_t max_inodes = kMaxTreeInodes);  // an empty root directory

  // Applies the next layer on top, with number 0, 1, … in order of the calls. Throws kCorrupt for
  // an entry that means nothing (a hardlink to nowhere, an unclean path), kTooLarge beyond
  // the most inodes; the tree is then good for nothing but destruction.
  void apply(const LayerIndex& layer);

  const std::vector<Inode>& inodes() const { return inodes_; }  // unlinked ones have links == 0
  const Inode& at(InodeNumber number) const { return inodes_[number]; }
  uint32_t layerCount() const { return layers_; }

  // Exact cleaned path, no symlink followed; kNoInode when absent.
  InodeNumber find(std::string_view path) const;
  // As the kernel would inside this root: symlinks followed (also the last when `follow_last`),
  // ".." stops at the root. kNoInode when absent or after kMaxSymlinkHops.
  InodeNumber resolve(std::string_view path, bool follow_last = true) const;
  // The cleaned path that `path` means after following symlinks in all existing parts; parts that
  // do not exist are kept as they are, and so is a symlink after kMaxSymlinkHops. Used for COPY
  // destinations.
  std::string resolvePath(std::string_view path, bool follow_last = true) const;

 private:
  // The directory of the entry before, which is most often the next entry's too.
  struct Cursor {
    std::string_view path;
    InodeNumber directory = kNoInode;  // kNoInode: unknown
  };

  void applyEntry(const Entry& entry, Cursor& cursor);
  void applyHardlink(const Entry& entry, Cursor& cursor);
  void hideChildren(std::string_view path);
  void removePath(std::string_view path, Cursor& cursor);
  InodeNumber makeDirectories(std::string_view path, Cursor& cursor);
  void setName(InodeNumber directory, std::string_view name, InodeNumber inode, Cursor& cursor);
  void setAttributes(Inode& inode, const Entry& entry) const;
  InodeNumber newInode();
  void dropName(InodeNumber inode);  // one name fewer; with the last, everything below goes too

  size_t max_inodes_;
  std::vector<Inode> inodes_;
  std::vector<InodeNumber> unused_;  // slots with links == 0, to be used again
  uint32_t layers_ = 0;
};

}  // namespace hull::image
