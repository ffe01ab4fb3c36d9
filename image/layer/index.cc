#include "image/layer/index.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "image/layer/index_codec.h"
#include "image/layer/path.h"

namespace hull::image {

namespace {

constexpr std::string_view kMagic = "HULLIDX1";
constexpr uint32_t kNanosecondsPerSecond = 1'000'000'000;
constexpr size_t kMinEntryBytes = 59;  // one with empty texts, as encodeEntry writes it

void readXattrs(ByteReader& in, Entry& entry) {
  const uint32_t count = in.u32();
  size_t total = 0;
  if (count > in.remaining() / (2 * sizeof(uint32_t))) return in.fail();
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    std::string name = in.string(kMaxNameBytes);
    std::string value = in.string(kMaxXattrBytes);
    total += name.size() + value.size();
    const bool sorted = entry.xattrs.empty() || entry.xattrs.back().first < name;
    if (name.empty() || !sorted || total > kMaxXattrBytes) return in.fail();
    entry.xattrs.emplace_back(std::move(name), std::move(value));
  }
}

bool linkFits(const Entry& entry) {
  switch (entry.type) {
    case EntryType::kSymlink:
      return !entry.link.empty() && entry.link.size() <= kMaxSymlinkBytes &&
             entry.link.find('\0') == std::string::npos;
    case EntryType::kHardlink:
      return !entry.link.empty() && isCleanPath(entry.link);
    default:
      return entry.link.empty();
  }
}

bool contentFits(const Entry& entry, uint64_t data_bytes) {
  if (entry.type != EntryType::kFile || entry.size == 0) {
    return entry.size == 0 && entry.data_offset == 0;
  }
  return entry.data_offset % kContentAlignment == 0 && entry.data_offset <= data_bytes &&
         entry.size <= data_bytes - entry.data_offset;
}

Entry readEntry(ByteReader& in, uint64_t data_bytes) {
  Entry entry;
  entry.path = in.string(kMaxPathBytes);
  const uint8_t type = in.u8();
  if (type > static_cast<uint8_t>(EntryType::kOpaque)) in.fail();
  entry.type = static_cast<EntryType>(type);
  entry.mode = in.u16();
  entry.uid = in.u32();
  entry.gid = in.u32();
  entry.mtime_seconds = in.i64();
  entry.mtime_nanoseconds = in.u32();
  entry.size = in.u64();
  entry.data_offset = in.u64();
  entry.link = in.string(kMaxPathBytes);
  entry.device_major = in.u32();
  entry.device_minor = in.u32();
  readXattrs(in, entry);
  const bool root_ok = !entry.path.empty() || entry.type == EntryType::kDirectory ||
                       entry.type == EntryType::kOpaque;
  if (in.ok() && (!isCleanPath(entry.path) || !root_ok || entry.mode > 07777 ||
                  entry.mtime_nanoseconds >= kNanosecondsPerSecond || !linkFits(entry) ||
                  !contentFits(entry, data_bytes))) {
    in.fail();
  }
  return entry;
}

}  // namespace

std::string encodeIndexHeader(uint64_t count, uint64_t data_bytes) {
  ByteWriter out;
  out.raw(kMagic);
  out.u64(count);
  out.u64(data_bytes);
  return out.take();
}

void encodeEntry(ByteWriter& out, const Entry& entry) {
  out.string(entry.path);
  out.u8(static_cast<uint8_t>(entry.type));
  out.u16(entry.mode);
  out.u32(entry.uid);
  out.u32(entry.gid);
  out.i64(entry.mtime_seconds);
  out.u32(entry.mtime_nanoseconds);
  out.u64(entry.size);
  out.u64(entry.data_offset);
  out.string(entry.link);
  out.u32(entry.device_major);
  out.u32(entry.device_minor);
  out.u32(static_cast<uint32_t>(entry.xattrs.size()));
  for (const auto& [name, value] : entry.xattrs) {
    out.string(name);
    out.string(value);
  }
}

std::string encode(const LayerIndex& index) {
  ByteWriter out;
  out.raw(encodeIndexHeader(index.entries.size(), index.data_bytes));
  for (const Entry& entry : index.entries) encodeEntry(out, entry);
  return out.take();
}

LayerIndex decodeLayerIndex(std::string_view bytes) {
  ByteReader in(bytes);
  LayerIndex index;
  if (in.raw(kMagic.size()) != kMagic) {
    throw Error(ErrorKind::kCorrupt, "read layer index: not an index of this version");
  }
  const uint64_t count = in.u64();
  index.data_bytes = in.u64();
  if (count > kMaxEntriesPerLayer || count > in.remaining() / kMinEntryBytes ||
      index.data_bytes % kContentAlignment != 0) {
    in.fail();
  }
  if (in.ok()) index.entries.reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    index.entries.push_back(readEntry(in, index.data_bytes));
  }
  if (!in.complete()) throw Error(ErrorKind::kCorrupt, "read layer index: malformed or cut short");
  return index;
}

}  // namespace hull::image
