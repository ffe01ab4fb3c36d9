#include "image/ext4/directory.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"

namespace hull::ext4 {
namespace {

using image::EntryType;
using image::Inode;
using image::InodeNumber;

constexpr size_t kEntryHeaderBytes = 8;  // inode, record length, name length, type
constexpr size_t kTailBytes = 12;        // a checksum dressed up as an unused entry
constexpr size_t kUsableBytes = kBlockBytes - kTailBytes;
constexpr uint8_t kTailType = 0xde;  // EXT4_FT_DIR_CSUM
constexpr size_t kDotBytes = 12;     // "." and ".." each

// Tree blocks start with entries that make them look like an empty directory block to those who do
// not know trees: "." and ".." and the tree's facts in the root, one unused entry in a node.
constexpr size_t kRootInfoOffset = 2 * kDotBytes;
constexpr size_t kRootIndexOffset = kRootInfoOffset + sizeof(ext2_dx_root_info);
constexpr size_t kNodeIndexOffset = kEntryHeaderBytes;
constexpr size_t indexCapacity(size_t offset) {
  return (kBlockBytes - offset - sizeof(ext2_dx_tail)) / sizeof(ext2_dx_entry);
}
constexpr uint64_t kRootCapacity = indexCapacity(kRootIndexOffset);
constexpr uint64_t kNodeCapacity = indexCapacity(kNodeIndexOffset);
static_assert(kRootCapacity == 507 && kNodeCapacity == 510);

// The hash above all others means "end of directory" to readers (EXT4_HTREE_EOF_32BIT).
constexpr uint32_t kLargestHash = 0xfffffffc;

size_t entryBytes(std::string_view name) {
  return kEntryHeaderBytes + roundUp(name.size(), 4);
}

uint8_t fileType(EntryType type) {
  switch (type) {
    case EntryType::kDirectory:
      return EXT2_FT_DIR;
    case EntryType::kSymlink:
      return EXT2_FT_SYMLINK;
    case EntryType::kCharDevice:
      return EXT2_FT_CHRDEV;
    case EntryType::kBlockDevice:
      return EXT2_FT_BLKDEV;
    case EntryType::kFifo:
      return EXT2_FT_FIFO;
    default:
      return EXT2_FT_REG_FILE;
  }
}

void putEntry(std::byte* at, uint32_t inode, size_t record_bytes, std::string_view name,
              uint8_t type) {
  put(at, inode);
  put(at + 4, static_cast<uint16_t>(record_bytes));
  put(at + 6, static_cast<uint8_t>(name.size()));
  put(at + 7, type);
  name.copy(reinterpret_cast<char*>(at + kEntryHeaderBytes), name.size());
}

// Fills one block after the other with entries.
class EntryPacker {
 public:
  EntryPacker(uint32_t self, BlockWriter& out, Fingerprint& fingerprint)
      : seed_(inodeChecksumSeed(self)), out_(out), fingerprint_(fingerprint) {}

  void begin() {
    block_ = out_.next().data();
    used_ = last_ = 0;
  }
  bool fits(std::string_view name) const { return used_ + entryBytes(name) <= kUsableBytes; }
  void add(uint32_t inode, std::string_view name, uint8_t type) {
    putEntry(block_ + used_, inode, entryBytes(name), name, type);
    last_ = used_;
    used_ += entryBytes(name);
  }
  // The last entry takes the rest of the block; the tail closes it.
  void end() {
    put(block_ + last_ + 4, static_cast<uint16_t>(kUsableBytes - last_));
    putEntry(block_ + kUsableBytes, 0, kTailBytes, {}, kTailType);
    const uint32_t checksum = crc32c(seed_, {block_, kUsableBytes});
    put(block_ + kUsableBytes + kEntryHeaderBytes, checksum);
    fingerprint_.add(checksum);
  }

 private:
  uint32_t seed_;
  BlockWriter& out_;
  Fingerprint& fingerprint_;
  std::byte* block_ = nullptr;
  size_t used_ = 0;
  size_t last_ = 0;
};

uint64_t listBlocks(const Inode& directory) {
  uint64_t blocks = 1;
  size_t used = 2 * kDotBytes;
  for (const auto& [name, child] : directory.children) {
    const size_t bytes = entryBytes(name);
    if (used + bytes > kUsableBytes) {
      ++blocks;
      used = 0;
    }
    used += bytes;
  }
  return blocks;
}

struct HashedName {
  uint32_t hash;
  uint32_t minor_hash;
  const std::string* name;
  InodeNumber child;
};

// A directory's names in the order of their hashes, cut into leaf blocks.
struct HashTree {
  std::vector<HashedName> names;
  std::vector<size_t> leaf_starts;  // index of each leaf's first name
  uint64_t nodes = 0;               // blocks between root and leaves

  uint64_t blocks() const { return 1 + nodes + leaf_starts.size(); }

  // What a reader compares with to choose the leaf. The lowest bit says that names of this very
  // hash begin in the leaf before.
  uint32_t leafHash(size_t leaf) const {
    const size_t first = leaf_starts[leaf];
    if (leaf == 0) return 0;
    return names[first].hash | (names[first - 1].hash == names[first].hash ? 1 : 0);
  }
};

HashTree buildHashTree(const Inode& directory) {
  HashTree tree;
  tree.names.reserve(directory.children.size());
  for (const auto& [name, child] : directory.children) {
    HashedName hashed{0, 0, &name, child};
    ext2fs_dirhash(EXT2_HASH_HALF_MD4_UNSIGNED, name.data(), static_cast<int>(name.size()),
                   kHashSeed.data(), &hashed.hash, &hashed.minor_hash);
    hashed.hash = std::min(hashed.hash, kLargestHash);
    tree.names.push_back(hashed);
  }
  std::sort(tree.names.begin(), tree.names.end(), [](const auto& a, const auto& b) {
    return std::tie(a.hash, a.minor_hash, *a.name) < std::tie(b.hash, b.minor_hash, *b.name);
  });
  size_t used = kUsableBytes;
  for (size_t i = 0; i < tree.names.size(); ++i) {
    const size_t bytes = entryBytes(*tree.names[i].name);
    if (used + bytes > kUsableBytes) {
      tree.leaf_starts.push_back(i);
      used = 0;
    }
    used += bytes;
  }
  const uint64_t leaves = tree.leaf_starts.size();
  if (leaves > kRootCapacity) tree.nodes = divideUp(leaves, kNodeCapacity);
  if (tree.nodes > kRootCapacity) {
    throw Error(ErrorKind::kTooLarge,
                fmt::format("{} names are more than an ext4 directory holds", tree.names.size()));
  }
  return tree;
}

class HashTreeWriter {
 public:
  HashTreeWriter(const HashTree& tree, uint32_t self, BlockWriter& out, Fingerprint& fingerprint)
      : tree_(tree), self_(self), out_(out), fingerprint_(fingerprint) {}

  void write(uint32_t parent, const Names& names) {
    writeRoot(parent);
    for (uint64_t node = 0; node < tree_.nodes; ++node) writeNode(node);
    EntryPacker packer(self_, out_, fingerprint_);
    for (size_t leaf = 0; leaf < tree_.leaf_starts.size(); ++leaf) {
      packer.begin();
      for (size_t i = tree_.leaf_starts[leaf]; i < leafEnd(leaf); ++i) {
        const HashedName& hashed = tree_.names[i];
        packer.add(names.numbers[hashed.child], *hashed.name,
                   fileType(names.tree.at(hashed.child).type));
      }
      packer.end();
    }
  }

 private:
  size_t leafEnd(size_t leaf) const {
    return leaf + 1 < tree_.leaf_starts.size() ? tree_.leaf_starts[leaf + 1] : tree_.names.size();
  }
  uint64_t leafCount() const { return tree_.leaf_starts.size(); }

  void writeRoot(uint32_t parent) {
    std::byte* const block = out_.next().data();
    putEntry(block, self_, kDotBytes, ".", EXT2_FT_DIR);
    putEntry(block + kDotBytes, parent, kBlockBytes - kDotBytes, "..", EXT2_FT_DIR);
    ext2_dx_root_info info{};
    info.hash_version = EXT2_HASH_HALF_MD4;  // the superblock's flag makes it the unsigned kind
    info.info_length = sizeof info;
    info.indirect_levels = tree_.nodes > 0 ? 1 : 0;
    put(block + kRootInfoOffset, info);
    std::vector<ext2_dx_entry> entries;
    if (tree_.nodes > 0) {
      for (uint64_t node = 0; node < tree_.nodes; ++node)
        entries.push_back({tree_.leafHash(node * kNodeCapacity), low32(1 + node)});
    } else {
      for (uint64_t leaf = 0; leaf < leafCount(); ++leaf)
        entries.push_back({tree_.leafHash(leaf), low32(1 + leaf)});
    }
    putIndex(block, kRootIndexOffset, entries);
  }

  void writeNode(uint64_t node) {
    std::byte* const block = out_.next().data();
    putEntry(block, 0, kBlockBytes, {}, 0);
    std::vector<ext2_dx_entry> entries;
    const uint64_t end = std::min((node + 1) * kNodeCapacity, leafCount());
    for (uint64_t leaf = node * kNodeCapacity; leaf < end; ++leaf)
      entries.push_back({tree_.leafHash(leaf), low32(1 + tree_.nodes + leaf)});
    putIndex(block, kNodeIndexOffset, entries);
  }

  // The first entry's hash is known from above; its place holds capacity and count.
  void putIndex(std::byte* block, size_t offset, std::span<const ext2_dx_entry> entries) {
    std::memcpy(block + offset, entries.data(), entries.size_bytes());
    ext2_dx_countlimit limits{};
    limits.limit = static_cast<uint16_t>(indexCapacity(offset));
    limits.count = static_cast<uint16_t>(entries.size());
    put(block + offset, limits);
    // ext4_dx_csum(): the entries in use, then the tail with a checksum of zero.
    const uint32_t covered =
        crc32c(inodeChecksumSeed(self_), {block, offset + entries.size_bytes()});
    ext2_dx_tail tail{};
    tail.dt_checksum = crc32cOf(covered, tail);
    put(block + offset + limits.limit * sizeof(ext2_dx_entry), tail);
    fingerprint_.add(tail.dt_checksum);
  }

  const HashTree& tree_;
  uint32_t self_;
  BlockWriter& out_;
  Fingerprint& fingerprint_;
};

void writeList(const Inode& directory, uint32_t self, uint32_t parent, const Names& names,
               EntryPacker& packer) {
  packer.begin();
  packer.add(self, ".", EXT2_FT_DIR);
  packer.add(parent, "..", EXT2_FT_DIR);
  for (const auto& [name, child] : directory.children) {
    if (!packer.fits(name)) {
      packer.end();
      packer.begin();
    }
    packer.add(names.numbers[child], name, fileType(names.tree.at(child).type));
  }
  packer.end();
}

}  // namespace

DirectoryShape directoryShape(const Inode& directory) {
  const uint64_t blocks = listBlocks(directory);
  if (blocks <= kMaxListBlocks) return {blocks, false};
  return {buildHashTree(directory).blocks(), true};
}

DirectoryShape writeDirectory(const Inode& directory, uint32_t self, uint32_t parent,
                              const Names& names, BlockWriter& out, Fingerprint& fingerprint) {
  const uint64_t blocks = listBlocks(directory);
  if (blocks <= kMaxListBlocks) {
    EntryPacker packer(self, out, fingerprint);
    writeList(directory, self, parent, names, packer);
    return {blocks, false};
  }
  const HashTree tree = buildHashTree(directory);
  HashTreeWriter(tree, self, out, fingerprint).write(parent, names);
  return {tree.blocks(), true};
}

}  // namespace hull::ext4
