#include "image/ext4/stitch.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/error.h"
#include "image/ext4/directory.h"
#include "image/ext4/geometry.h"
#include "image/ext4/groups.h"
#include "image/ext4/inode.h"

namespace hull::image {
namespace {

using namespace ext4;

constexpr InodeNumber kTreeRoot = 0;

// The steps, in the order they run:
//   number   every inode of the tree gets its number on the disk
//   measure  how many blocks does each need; which layers are mapped; which blocks are in use
//   plan     with that, where everything lies (Geometry)
//   write    inode records and their blocks in order, then what describes the disk
class Stitcher {
 public:
  Stitcher(const Tree& tree, std::span<const uint64_t> data_bytes, int fd)
      : tree_(tree), data_bytes_(data_bytes), fd_(fd) {}

  StitchedDisk stitch() {
    number();
    measure();
    plan();
    writeInodes();
    writeXattrBlocks();
    writeGroups(geometry_, {lastInode(), runs_, group_directories_}, fingerprint_.finishHex(), fd_);
    return describe();
  }

 private:
  struct XattrBlock {
    InodeNumber owner;  // any of its users: they have the same list
    uint32_t users = 1;
  };
  struct ByContent {
    bool operator()(const XattrList* a, const XattrList* b) const { return *a < *b; }
  };
  struct Content {
    uint32_t layer;
    uint64_t first;  // block in the layer's data file
    uint64_t blocks;
    InodeNumber inode;
  };

  void number();
  void measure();
  uint64_t measureInode(InodeNumber inode);
  void measureFile(InodeNumber inode);
  void assignXattrBlock(InodeNumber inode);
  void refuseSharedContent();
  void plan();
  void writeInodes();
  InodeRecord writeContent(InodeNumber inode, BlockWriter& out);
  void writeDirectoryContent(InodeNumber inode, InodeRecord& record, BlockWriter& out);
  void writeSymlinkContent(const Inode& inode, InodeRecord& record, BlockWriter& out);
  void mapRun(InodeRecord& record, uint64_t start, uint64_t blocks, BlockWriter& out);
  void writeXattrBlocks();
  StitchedDisk describe() const;

  uint32_t lastInode() const { return low32(kFirstFreeInode - 2 + order_.size()); }
  InodeNumber parentOf(InodeNumber inode) const { return parents_[inode]; }
  std::string pathOf(InodeNumber inode) const;
  [[noreturn]] void refuse(ErrorKind kind, InodeNumber inode, std::string_view why) const;
  // Runs `work`, naming the inode's path in any error.
  template <typename Work>
  auto naming(InodeNumber inode, Work&& work) const {
    try {
      return work();
    } catch (const Error& error) {
      throw error.within(fmt::format("stitch root disk: \"{}\"", pathOf(inode)));
    }
  }

  const Tree& tree_;
  std::span<const uint64_t> data_bytes_;
  int fd_;

  std::vector<InodeNumber> order_;    // the tree's inodes in the order of their numbers; root first
  std::vector<uint32_t> numbers_;     // by the tree's inode; 0: not in the tree
  std::vector<InodeNumber> parents_;  // by the tree's inode: a directory that names it
  uint64_t content_blocks_ = 0;       // directories, symlinks, extent trees
  std::vector<Content> contents_;     // of files; later sorted by layer and place
  std::vector<XattrBlock> xattr_blocks_;
  std::map<const XattrList*, uint32_t, ByContent> xattr_block_of_list_;
  std::unordered_map<InodeNumber, uint32_t> xattr_block_of_inode_;
  std::vector<uint64_t> window_blocks_;  // by layer; 0 when no file needs it
  Geometry geometry_;
  std::vector<BlockRun> runs_;
  std::vector<uint32_t> group_directories_;
  Fingerprint fingerprint_;
};

std::string Stitcher::pathOf(InodeNumber inode) const {
  std::string path;
  while (inode != kTreeRoot) {
    const InodeNumber parent = parentOf(inode);
    for (const auto& [name, child] : tree_.at(parent).children) {
      if (child != inode) continue;
      path = path.empty() ? name : name + "/" + path;
      break;
    }
    inode = parent;
  }
  return "/" + path;
}

void Stitcher::refuse(ErrorKind kind, InodeNumber inode, std::string_view why) const {
  throw Error(kind, fmt::format("stitch root disk: \"{}\": {}", pathOf(inode), why));
}

// Depth first, the children of a directory side by side: what is listed together is read together.
// By names alone, so that equal trees give equal disks whatever layers they came from.
void Stitcher::number() {
  numbers_.assign(tree_.inodes().size(), 0);
  parents_.assign(tree_.inodes().size(), kTreeRoot);
  numbers_[kTreeRoot] = kRootInode;
  order_.push_back(kTreeRoot);
  std::vector<InodeNumber> directories{kTreeRoot};
  while (!directories.empty()) {
    const InodeNumber directory = directories.back();
    directories.pop_back();
    const size_t first_new = directories.size();
    for (const auto& [name, child] : tree_.at(directory).children) {
      if (numbers_[child] != 0) continue;  // a hardlink's second name
      numbers_[child] = low32(kFirstFreeInode - 1 + order_.size());
      parents_[child] = directory;
      order_.push_back(child);
      if (tree_.at(child).type == EntryType::kDirectory) directories.push_back(child);
    }
    std::reverse(directories.begin() + static_cast<std::ptrdiff_t>(first_new), directories.end());
  }
}

void Stitcher::measure() {
  window_blocks_.assign(data_bytes_.size(), 0);
  for (const InodeNumber inode : order_) {
    content_blocks_ += measureInode(inode);
    if (!tree_.at(inode).xattrs.empty()) assignXattrBlock(inode);
  }
  refuseSharedContent();
}

uint64_t Stitcher::measureInode(InodeNumber number) {
  const Inode& inode = tree_.at(number);
  if (inode.type == EntryType::kDirectory) {
    const uint64_t blocks = naming(number, [&] { return directoryShape(inode).blocks; });
    return blocks + extentTreeBlocks(blocks);
  }
  if (inode.links > kMaxLinks)
    refuse(ErrorKind::kNotSupported, number, "more than 65000 hardlinks");
  if (inode.type == EntryType::kSymlink) {
    const bool possible = !inode.link.empty() && inode.link.size() <= kMaxSymlinkBytes &&
                          inode.link.find('\0') == std::string::npos;
    if (!possible)
      refuse(ErrorKind::kNotSupported, number,
             "a symlink's target must be 1 to 4095 bytes, no NUL");
    return inode.link.size() > kMaxFastSymlinkBytes ? 1 : 0;
  }
  if (inode.type == EntryType::kFile && inode.size > 0) {
    measureFile(number);
    return extentTreeBlocks(blocksOf(inode.size));
  }
  return 0;
}

void Stitcher::measureFile(InodeNumber number) {
  const Inode& inode = tree_.at(number);
  const uint64_t blocks = blocksOf(inode.size);
  if (blocks > kMaxFileBlocks)
    refuse(ErrorKind::kTooLarge, number, "larger than an ext4 file can be");
  const bool inside = inode.layer < data_bytes_.size() &&
                      inode.data_offset % kContentAlignment == 0 &&
                      inode.data_offset <= data_bytes_[inode.layer] &&
                      blocks <= (data_bytes_[inode.layer] - inode.data_offset) / kBlockBytes;
  if (!inside) refuse(ErrorKind::kCorrupt, number, "its content lies outside its layer's data");
  contents_.push_back({inode.layer, inode.data_offset / kBlockBytes, blocks, number});
  window_blocks_[inode.layer] = data_bytes_[inode.layer] / kBlockBytes;
}

void Stitcher::assignXattrBlock(InodeNumber number) {
  const XattrList& xattrs = tree_.at(number).xattrs;
  if (const auto there = xattr_block_of_list_.find(&xattrs); there != xattr_block_of_list_.end()) {
    XattrBlock& block = xattr_blocks_[there->second];
    if (block.users < kMaxXattrBlockUsers) {
      ++block.users;
      xattr_block_of_inode_[number] = there->second;
      return;
    }
  } else if (!naming(number, [&] { return encodeXattrs(xattrs).block != nullptr; })) {
    return;
  }
  const uint32_t index = low32(xattr_blocks_.size());
  xattr_blocks_.push_back({number});
  xattr_block_of_list_[&xattrs] = index;
  xattr_block_of_inode_[number] = index;
}

// Two files on the same blocks would be one file's blocks claimed twice.
void Stitcher::refuseSharedContent() {
  std::sort(contents_.begin(), contents_.end(), [](const Content& a, const Content& b) {
    return std::tie(a.layer, a.first) < std::tie(b.layer, b.first);
  });
  for (size_t i = 1; i < contents_.size(); ++i) {
    const Content& before = contents_[i - 1];
    if (before.layer != contents_[i].layer || before.first + before.blocks <= contents_[i].first)
      continue;
    refuse(ErrorKind::kCorrupt, contents_[i].inode,
           fmt::format("shares its content with \"{}\"", pathOf(before.inode)));
  }
}

void Stitcher::plan() {
  geometry_ = planGeometry(lastInode(), content_blocks_ + xattr_blocks_.size(), window_blocks_);
  for (const Content& content : contents_) {
    const uint64_t start = geometry_.windows[content.layer] + content.first;
    if (!runs_.empty() && runs_.back().start + runs_.back().blocks == start)
      runs_.back().blocks += content.blocks;
    else
      runs_.push_back({start, content.blocks});
  }
  group_directories_.assign(geometry_.groups, 0);
  if (::ftruncate(fd_, static_cast<off_t>(geometry_.metadata_end * kBlockBytes)) != 0)
    throw sysError("stitch root disk: size the metadata file");
}

void Stitcher::writeInodes() {
  BlockWriter table(fd_, geometry_.inode_tables);
  BlockWriter content(fd_, geometry_.content);
  BlockSpan block = table.next();
  for (const InodeNumber inode : order_) {
    const InodeRecord record = writeContent(inode, content);
    const uint32_t slot = record.number - 1;
    while (table.position() - 1 - geometry_.inode_tables < slot / kInodesPerBlock)
      block = table.next();
    const std::span<std::byte, kInodeBytes> place(
        block.data() + slot % kInodesPerBlock * kInodeBytes, kInodeBytes);
    fingerprint_.add(putInode(place, record, tree_.at(inode)));
    if (tree_.at(inode).type == EntryType::kDirectory)
      ++group_directories_[slot / geometry_.inodes_per_group];
  }
  table.flush();
  content.flush();
}

// What the inode needs besides its record goes to `out`; the record says where it is.
InodeRecord Stitcher::writeContent(InodeNumber number, BlockWriter& out) {
  const Inode& inode = tree_.at(number);
  InodeRecord record;
  record.number = numbers_[number];
  record.links = inode.links;
  if (inode.type == EntryType::kDirectory) {
    writeDirectoryContent(number, record, out);
  } else if (inode.type == EntryType::kSymlink) {
    writeSymlinkContent(inode, record, out);
  } else if (inode.type == EntryType::kFile) {
    record.size = inode.size;
    const uint64_t start =
        inode.size == 0 ? 0 : geometry_.windows[inode.layer] + inode.data_offset / kBlockBytes;
    mapRun(record, start, blocksOf(inode.size), out);
  } else if (inode.type != EntryType::kFifo) {
    record.i_block = naming(number, [&] { return deviceBlock(inode); });
  }
  if (!inode.xattrs.empty()) {
    record.xattrs = encodeXattrs(inode.xattrs).in_inode;
    const auto block = xattr_block_of_inode_.find(number);
    if (block != xattr_block_of_inode_.end()) {
      record.xattr_block = geometry_.content + content_blocks_ + block->second;
      ++record.blocks;
    }
  }
  return record;
}

void Stitcher::writeDirectoryContent(InodeNumber number, InodeRecord& record, BlockWriter& out) {
  const Inode& inode = tree_.at(number);
  const uint64_t start = out.position();
  const DirectoryShape shape = writeDirectory(inode, record.number, numbers_[parentOf(number)],
                                              {tree_, numbers_}, out, fingerprint_);
  record.size = shape.blocks * kBlockBytes;
  if (shape.indexed) record.flags |= EXT2_INDEX_FL;
  mapRun(record, start, shape.blocks, out);
  const auto subdirectories = std::count_if(
      inode.children.begin(), inode.children.end(),
      [&](const auto& child) { return tree_.at(child.second).type == EntryType::kDirectory; });
  // Its name, its ".", and each child's ".."; 1 stands for "too many to count" (dir_nlink).
  const uint64_t links = 2 + static_cast<uint64_t>(subdirectories);
  record.links = links > kMaxLinks ? 1 : low32(links);
}

void Stitcher::writeSymlinkContent(const Inode& inode, InodeRecord& record, BlockWriter& out) {
  record.size = inode.link.size();
  if (inode.link.size() <= kMaxFastSymlinkBytes) {
    std::memcpy(record.i_block.data(), inode.link.data(), inode.link.size());
    return;
  }
  const uint64_t start = out.position();
  const BlockSpan block = out.next();
  std::memcpy(block.data(), inode.link.data(), inode.link.size());
  fingerprint_.add(crc32c(kChecksumSeed, block));
  mapRun(record, start, 1, out);
}

void Stitcher::mapRun(InodeRecord& record, uint64_t start, uint64_t blocks, BlockWriter& out) {
  record.flags |= EXT4_EXTENTS_FL;
  record.blocks += blocks + extentTreeBlocks(blocks);
  writeExtentTree(record.i_block, record.number, start, blocks, out);
}

void Stitcher::writeXattrBlocks() {
  BlockWriter out(fd_, geometry_.content + content_blocks_);
  for (const XattrBlock& shared : xattr_blocks_) {
    const uint64_t number = out.position();
    const BlockSpan block = out.next();
    const EncodedXattrs encoded = encodeXattrs(tree_.at(shared.owner).xattrs);
    std::copy(encoded.block->begin(), encoded.block->end(), block.begin());
    fingerprint_.add(sealXattrBlock(block, number, shared.users));
  }
  out.flush();
}

StitchedDisk Stitcher::describe() const {
  StitchedDisk disk;
  disk.disk_bytes = geometry_.blocks * kBlockBytes;
  disk.metadata_bytes = geometry_.metadata_end * kBlockBytes;
  disk.segments.push_back({StitchedSegment::kMetadata, 0, 0, disk.metadata_bytes});
  for (uint32_t layer = 0; layer < window_blocks_.size(); ++layer) {
    if (window_blocks_[layer] == 0) continue;
    disk.segments.push_back(
        {layer, 0, geometry_.windows[layer] * kBlockBytes, window_blocks_[layer] * kBlockBytes});
  }
  return disk;
}

}  // namespace

StitchedDisk stitch(const Tree& tree, std::span<const uint64_t> data_bytes, int metadata_fd) {
  for (const uint64_t bytes : data_bytes) {
    if (bytes % kContentAlignment != 0) {
      throw Error(
          ErrorKind::kInvalidArgument,
          fmt::format("stitch root disk: a layer's data of {} bytes is not a multiple of {}", bytes,
                      kContentAlignment));
    }
  }
  return Stitcher(tree, data_bytes, metadata_fd).stitch();
}

}  // namespace hull::image
