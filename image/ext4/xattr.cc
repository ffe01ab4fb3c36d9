#include "image/ext4/xattr.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <tuple>

#include "base/bytes.h"
#include "base/error.h"

namespace hull::ext4 {
namespace {

constexpr size_t kEntryHeaderBytes = sizeof(ext2_ext_attr_entry);
constexpr size_t kEndBytes = 4;  // a zero after the last entry
constexpr size_t kMagicBytes = 4;
static_assert(kEntryHeaderBytes == 16 && sizeof(ext2_ext_attr_header) == 32);

// ext4 stores the usual beginnings of names as numbers. The two ACLs are all number.
struct Namespace {
  std::string_view prefix;
  uint8_t index;
};
constexpr Namespace kNamespaces[] = {{"user.", 1}, {"trusted.", 4}, {"security.", 6}};
constexpr std::string_view kAccessAcl = "system.posix_acl_access";
constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
constexpr uint8_t kAccessAclIndex = 2;
constexpr uint8_t kDefaultAclIndex = 3;

struct Attribute {
  uint8_t index = 0;
  std::string_view name;  // without the prefix
  std::string value;

  size_t entryBytes() const { return kEntryHeaderBytes + roundUp(name.size(), 4); }
  size_t bytes() const { return entryBytes() + roundUp(value.size(), 4); }
};

// From the form of setxattr(2) (linux/posix_acl_xattr.h) to fs/ext4/acl.h: another version number,
// and only entries for a named user or group keep their id.
std::string aclToDisk(std::string_view name, std::string_view value) {
  constexpr uint32_t kSystemCallVersion = 2;
  constexpr uint32_t kDiskVersion = 1;
  constexpr uint16_t kUser = 0x02, kGroup = 0x08;
  constexpr uint16_t kWithoutId[] = {0x01, 0x04, 0x10, 0x20};  // owner, group, mask, other
  constexpr uint16_t kAllPermissions = 7;
  const auto refuse = [&] {
    throw Error(ErrorKind::kCorrupt, fmt::format("xattr {}: not a valid ACL", name));
  };
  ByteReader in(value);
  if (in.u32() != kSystemCallVersion) refuse();
  ByteWriter out;
  out.u32(kDiskVersion);
  while (in.ok() && !in.atEnd()) {
    const uint16_t tag = in.u16();
    const uint16_t permissions = in.u16();
    const uint32_t id = in.u32();
    const bool has_id = tag == kUser || tag == kGroup;
    const bool known = has_id || std::find(std::begin(kWithoutId), std::end(kWithoutId), tag) !=
                                     std::end(kWithoutId);
    if (!in.ok() || !known || permissions > kAllPermissions) refuse();
    out.u16(tag);
    out.u16(permissions);
    if (has_id) out.u32(id);
  }
  if (!in.complete()) refuse();
  return out.take();
}

std::optional<Attribute> toAttribute(const std::string& name, const std::string& value) {
  if (name == kAccessAcl) return Attribute{kAccessAclIndex, {}, aclToDisk(name, value)};
  if (name == kDefaultAcl) return Attribute{kDefaultAclIndex, {}, aclToDisk(name, value)};
  for (const Namespace& space : kNamespaces) {
    if (!name.starts_with(space.prefix)) continue;
    const std::string_view rest = std::string_view(name).substr(space.prefix.size());
    if (rest.empty()) return std::nullopt;
    if (rest.size() > image::kMaxNameBytes || rest.find('\0') != std::string_view::npos) {
      throw Error(
          ErrorKind::kNotSupported,
          fmt::format("an xattr has a name of {} bytes that ext4 cannot hold", name.size()));
    }
    return Attribute{space.index, rest, value};
  }
  return std::nullopt;
}

// In the order that readers of a block search by; of equal names the last.
std::vector<Attribute> sortedAttributes(const XattrList& xattrs) {
  std::vector<Attribute> attributes;
  for (const auto& [name, value] : xattrs)
    if (auto attribute = toAttribute(name, value)) attributes.push_back(std::move(*attribute));
  const auto key = [](const Attribute& a) { return std::tuple(a.index, a.name.size(), a.name); };
  std::stable_sort(attributes.begin(), attributes.end(),
                   [&](const auto& a, const auto& b) { return key(a) < key(b); });
  std::vector<Attribute> unique;
  for (Attribute& attribute : attributes) {
    if (!unique.empty() && key(unique.back()) == key(attribute)) unique.pop_back();
    unique.push_back(std::move(attribute));
  }
  return unique;
}

// Entries grow from the front of `area`, values from its back. Offsets of values count from
// `offset_base` bytes before the area. Gives the hash over all entries.
uint32_t putAttributes(std::span<std::byte> area, size_t offset_base,
                       std::span<const Attribute* const> attributes) {
  constexpr uint32_t kShift = 16;
  std::byte* at = area.data();
  size_t values = area.size();
  uint32_t all = 0;
  for (const Attribute* attribute : attributes) {
    ext2_ext_attr_entry entry{};
    entry.e_name_len = static_cast<uint8_t>(attribute->name.size());
    entry.e_name_index = attribute->index;
    entry.e_value_size = static_cast<uint32_t>(attribute->value.size());
    std::byte* value = nullptr;
    if (!attribute->value.empty()) {
      values -= roundUp(attribute->value.size(), 4);
      entry.e_value_offs = static_cast<uint16_t>(offset_base + values);
      value = area.data() + values;
      std::memcpy(value, attribute->value.data(), attribute->value.size());
    }
    put(at, entry);
    attribute->name.copy(reinterpret_cast<char*>(at + kEntryHeaderBytes), attribute->name.size());
    auto* const placed = reinterpret_cast<ext2_ext_attr_entry*>(at);
    placed->e_hash = ext2fs_ext_attr_hash_entry(placed, value);
    all = (all << kShift) ^ (all >> (32 - kShift)) ^ placed->e_hash;
    at += attribute->entryBytes();
  }
  return all;
}

}  // namespace

EncodedXattrs encodeXattrs(const XattrList& xattrs) {
  EncodedXattrs encoded;
  const std::vector<Attribute> attributes = sortedAttributes(xattrs);
  std::vector<const Attribute*> in_inode, in_block;
  size_t inode_room = kInodeXattrBytes - kMagicBytes - kEndBytes;
  size_t block_room = kBlockBytes - sizeof(ext2_ext_attr_header) - kEndBytes;
  for (const Attribute& attribute : attributes) {
    const bool fits_inode = attribute.bytes() <= inode_room;
    size_t& room = fits_inode ? inode_room : block_room;
    if (attribute.bytes() > room) {
      throw Error(
          ErrorKind::kNotSupported,
          fmt::format("its xattrs are more than ext4 holds (one block of {} bytes)", kBlockBytes));
    }
    room -= attribute.bytes();
    (fits_inode ? in_inode : in_block).push_back(&attribute);
  }
  if (!in_inode.empty()) {
    put(encoded.in_inode.data(), uint32_t{EXT2_EXT_ATTR_MAGIC});
    putAttributes(std::span(encoded.in_inode).subspan(kMagicBytes), 0, in_inode);
  }
  if (!in_block.empty()) {
    encoded.block = std::make_unique<Block>();
    constexpr size_t kBegin = sizeof(ext2_ext_attr_header);
    ext2_ext_attr_header header{};
    header.h_magic = EXT2_EXT_ATTR_MAGIC;
    header.h_blocks = 1;
    header.h_hash = putAttributes(std::span(*encoded.block).subspan(kBegin), kBegin, in_block);
    put(encoded.block->data(), header);
  }
  return encoded;
}

uint32_t sealXattrBlock(BlockSpan block, uint64_t block_number, uint32_t users) {
  put(block.data() + offsetof(ext2_ext_attr_header, h_refcount), users);
  put(block.data() + offsetof(ext2_ext_attr_header, h_checksum), uint32_t{0});
  const uint32_t checksum = crc32c(crc32cOf(kChecksumSeed, block_number), block);
  put(block.data() + offsetof(ext2_ext_attr_header, h_checksum), checksum);
  return checksum;
}

}  // namespace hull::ext4
