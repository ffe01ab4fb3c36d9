#include "image/layer/tar_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/base64.h"
#include "base/error.h"
#include "image/layer/path.h"
#include "image/layer/tar_fields.h"

namespace hull::image {

namespace {

constexpr size_t kBufferBytes = 256 * 1024;
constexpr int64_t kMaxMemberBytes = int64_t{1} << 60;  // leaves room to round up
constexpr uint32_t kMaxDeviceMajor = (1U << 12) - 1;   // what Linux's dev_t holds
constexpr uint32_t kMaxDeviceMinor = (1U << 20) - 1;
constexpr std::string_view kSchilyXattr = "SCHILY.xattr.";
constexpr std::string_view kLibarchiveXattr = "LIBARCHIVE.xattr.";

std::string_view view(const std::array<char, kTarBlockBytes>& block) {
  return {block.data(), block.size()};
}

uint64_t paddingAfter(uint64_t size) {
  return (kTarBlockBytes - size % kTarBlockBytes) % kTarBlockBytes;
}

bool isZero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

bool isUstar(std::string_view block) {
  return tar::raw(block, tar::kMagic).substr(0, 6) == std::string_view("ustar\0", 6);
}
bool isGnu(std::string_view block) {
  return tar::raw(block, tar::kMagic) == std::string_view("ustar  \0", 8);
}

// The name in the header: prefix and name in ustar; GNU uses the prefix's place for other things.
std::string headerName(std::string_view block) {
  std::string name(tar::text(block, tar::kName));
  if (!isUstar(block)) return name;
  const bool star = tar::raw(block, tar::kStarTrailer) == std::string_view("tar\0", 4);
  const std::string_view prefix = tar::text(block, star ? tar::kStarPrefix : tar::kPrefix);
  return prefix.empty() ? name : std::string(prefix) + "/" + name;
}

const std::string* lastOf(const std::vector<std::pair<std::string, std::string>>& records,
                          std::string_view key) {
  for (auto it = records.rbegin(); it != records.rend(); ++it) {
    if (it->first == key) return &it->second;
  }
  return nullptr;
}

}  // namespace

// What the special members before a member said about it.
struct TarReader::Pending {
  bool any = false;
  PaxRecords pax;
  std::optional<std::string> long_name;
  std::optional<std::string> long_link;
};

TarReader::TarReader(Source& in)
    : in_(in), buffer_(std::make_unique_for_overwrite<std::byte[]>(kBufferBytes)) {}
TarReader::~TarReader() = default;

void TarReader::corrupt(const std::string& why) const {
  throw Error(ErrorKind::kCorrupt,
              "read tar: " + why + " (near byte " + std::to_string(position_) + ")");
}

bool TarReader::fill() {
  if (begin_ < end_) return true;
  begin_ = 0;
  end_ = in_.read({buffer_.get(), kBufferBytes});
  return end_ > 0;
}

void TarReader::readExactly(std::span<char> into) {
  while (!into.empty()) {
    if (!fill()) corrupt("the archive is cut off");
    const size_t size = std::min(into.size(), end_ - begin_);
    std::memcpy(into.data(), buffer_.get() + begin_, size);
    begin_ += size;
    position_ += size;
    into = into.subspan(size);
  }
}

bool TarReader::readBlock(Block& block) {
  if (!fill()) return false;
  readExactly(block);
  return true;
}

void TarReader::skip(uint64_t bytes) {
  while (bytes > 0) {
    if (!fill()) corrupt("the archive is cut off");
    const auto size = static_cast<size_t>(std::min<uint64_t>(bytes, end_ - begin_));
    begin_ += size;
    position_ += size;
    bytes -= size;
  }
}

void TarReader::drain() {
  while (fill()) {
    position_ += end_ - begin_;
    begin_ = end_;
  }
}

std::string TarReader::readSpecial(const Block& header) {
  const auto size = tar::number(tar::raw(view(header), tar::kSize));
  if (!size || *size < 0) corrupt("a special member has a malformed size");
  if (*size > static_cast<int64_t>(kMaxTarSpecialBytes)) {
    throw Error(ErrorKind::kTooLarge,
                "read tar: a PAX header or long name of " + std::to_string(*size) + " bytes");
  }
  std::string text(static_cast<size_t>(*size), '\0');
  readExactly(text);
  skip(paddingAfter(text.size()));
  return text;
}

void TarReader::readPax(const Block& header, Pending& pending) {
  const std::string text = readSpecial(header);
  pending.pax.clear();
  for (std::string_view rest = text; !rest.empty();) {
    auto record = tar::takePaxRecord(rest);
    if (!record) corrupt("malformed PAX record");
    pending.pax.push_back(std::move(*record));
  }
}

std::optional<TarEntry> TarReader::next() {
  skip(left_);
  skip(padding_);
  left_ = padding_ = 0;
  sparse_ = false;
  parts_.clear();
  Pending pending;
  for (;;) {
    Block block;
    if (!readBlock(block)) {
      if (pending.any) corrupt("the archive is cut off after a special member");
      return std::nullopt;
    }
    if (isZero(view(block))) {
      if (pending.any) corrupt("the archive ends after a special member");
      end_marked_ = true;
      Block second;  // a lone zero block at the very end is tolerated, as everywhere
      if (readBlock(second) && !isZero(view(second))) corrupt("data after a zero block");
      return std::nullopt;
    }
    if (!tar::checksumFits(view(block))) corrupt("not a tar header (wrong checksum)");
    const char type = tar::raw(view(block), tar::kType)[0];
    if (type == 'x') {
      readPax(block, pending);
    } else if (type == 'L') {
      const std::string text = readSpecial(block);
      pending.long_name = text.substr(0, text.find('\0'));
    } else if (type == 'K') {
      const std::string text = readSpecial(block);
      pending.long_link = text.substr(0, text.find('\0'));
    } else if (type == 'g') {
      readSpecial(block);  // global headers carry nothing that an image needs
      continue;
    } else {
      return interpret(block, pending);
    }
    pending.any = true;
  }
}

namespace {

std::optional<EntryType> entryType(char flag, std::string_view name) {
  switch (flag) {
    case '\0':  // before POSIX, a name ending in a slash was a directory
      return name.ends_with('/') ? EntryType::kDirectory : EntryType::kFile;
    case '0':
    case '7':  // "contiguous": a file to everybody
    case 'S':
      return EntryType::kFile;
    case '1':
      return EntryType::kHardlink;
    case '2':
      return EntryType::kSymlink;
    case '3':
      return EntryType::kCharDevice;
    case '4':
      return EntryType::kBlockDevice;
    case '5':
      return EntryType::kDirectory;
    case '6':
      return EntryType::kFifo;
    default:
      return std::nullopt;
  }
}

bool isDevice(EntryType type) {
  return type == EntryType::kCharDevice || type == EntryType::kBlockDevice;
}

}  // namespace

TarEntry TarReader::interpret(const Block& header, const Pending& pending) {
  const std::string_view block = view(header);
  const auto field = [&](tar::Field where, const char* what, int64_t least, int64_t most) {
    const auto value = tar::number(tar::raw(block, where));
    if (!value || *value < least || *value > most) corrupt(std::string("malformed ") + what);
    return *value;
  };
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  TarEntry entry;
  entry.path = headerName(block);
  entry.link = tar::text(block, tar::kLink);
  entry.mode = static_cast<uint16_t>(field(tar::kMode, "mode", 0, kNoLimit) & 07777);
  entry.uid = static_cast<uint32_t>(field(tar::kUid, "uid", 0, UINT32_MAX));
  entry.gid = static_cast<uint32_t>(field(tar::kGid, "gid", 0, UINT32_MAX));
  entry.mtime_seconds = field(tar::kMtime, "time", -kNoLimit, kNoLimit);
  entry.size = static_cast<uint64_t>(field(tar::kSize, "size", 0, kMaxMemberBytes));
  applyPax(entry, pending.pax);
  if (pending.long_name) entry.path = *pending.long_name;
  if (pending.long_link) entry.link = *pending.long_link;

  const char flag = tar::raw(block, tar::kType)[0];
  const auto type = entryType(flag, entry.path);
  if (!type) {
    throw Error(ErrorKind::kNotSupported, "read tar: member " + quotePath(entry.path) +
                                              " has the unknown type " +
                                              quotePath(std::string(1, flag)));
  }
  entry.type = *type;
  if (isDevice(entry.type)) {
    entry.device_major =
        static_cast<uint32_t>(field(tar::kMajor, "device number", 0, kMaxDeviceMajor));
    entry.device_minor =
        static_cast<uint32_t>(field(tar::kMinor, "device number", 0, kMaxDeviceMinor));
  }
  if (entry.type != EntryType::kFile) {
    entry.size = 0;  // the size of a directory or link is a hint; no content follows
    if (entry.type != EntryType::kHardlink && entry.type != EntryType::kSymlink) entry.link.clear();
    return entry;
  }
  entry.link.clear();
  left_ = entry.size;
  padding_ = paddingAfter(left_);
  if (flag == 'S') {
    sparseFromGnuHeader(entry, header);
  } else {
    sparseFromPax(entry, pending.pax);
  }
  if (sparse_) checkSparse(entry);
  return entry;
}

void TarReader::applyPax(TarEntry& entry, const PaxRecords& records) {
  std::map<std::string, std::string> libarchive_xattrs;
  for (const auto& [key, value] : records) {
    if (key.starts_with(kSchilyXattr)) {
      entry.xattrs[key.substr(kSchilyXattr.size())] = value;
      continue;
    }
    if (key.starts_with(kLibarchiveXattr)) {
      auto decoded = base64Decode(value);
      if (!decoded) corrupt("malformed extended attribute");
      libarchive_xattrs[tar::decodePercent(std::string_view(key).substr(kLibarchiveXattr.size()))] =
          std::move(*decoded);
      continue;
    }
    if (value.empty()) continue;  // "delete this record": the header's value counts
    if (key == "path" || key == "linkpath") {
      if (value.find('\0') != std::string::npos) corrupt("a PAX path with a NUL byte");
      (key == "path" ? entry.path : entry.link) = value;
    } else if (key == "size" || key == "uid" || key == "gid") {
      const auto number = tar::decimal(value);
      const uint64_t most = key == "size" ? uint64_t{kMaxMemberBytes} : UINT32_MAX;
      if (!number || *number > most) corrupt("malformed PAX " + key);
      if (key == "size") entry.size = *number;
      if (key == "uid") entry.uid = static_cast<uint32_t>(*number);
      if (key == "gid") entry.gid = static_cast<uint32_t>(*number);
    } else if (key == "mtime") {
      const auto time = tar::time(value);
      if (!time) corrupt("malformed PAX mtime");
      entry.mtime_seconds = time->seconds;
      entry.mtime_nanoseconds = time->nanoseconds;
    }
  }
  entry.xattrs.merge(libarchive_xattrs);  // libarchive writes both forms; SCHILY's counts
  size_t total = 0;
  for (const auto& [name, value] : entry.xattrs) {
    if (name.empty() || name.find('\0') != std::string::npos) corrupt("malformed xattr name");
    total += name.size() + value.size();
    if (name.size() > kMaxNameBytes || total > kMaxXattrBytes) {
      throw Error(ErrorKind::kTooLarge, "read tar: member " + quotePath(entry.path) +
                                            " has more than " + std::to_string(kMaxXattrBytes) +
                                            " bytes of extended attributes");
    }
  }
}

void TarReader::content(const ContentFunction& take) {
  const auto pass = [&](uint64_t offset, uint64_t length) {
    if (length > left_) corrupt("a sparse file has less data than its map says");
    while (length > 0) {
      if (!fill()) corrupt("the archive is cut off");
      const auto size = static_cast<size_t>(std::min<uint64_t>(length, end_ - begin_));
      take(offset, {buffer_.get() + begin_, size});
      begin_ += size;
      position_ += size;
      offset += size;
      length -= size;
      left_ -= size;
    }
  };
  if (!sparse_) return pass(0, left_);
  for (const Part& part : parts_) pass(part.offset, part.length);
}

std::string TarReader::contentText(size_t limit) {
  std::string text;
  content([&](uint64_t offset, std::span<const std::byte> bytes) {
    if (offset > limit || bytes.size() > limit - offset) {
      throw Error(ErrorKind::kTooLarge,
                  "read tar: a member is larger than " + std::to_string(limit) + " bytes");
    }
    text.resize(static_cast<size_t>(offset), '\0');
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return text;
}

// Sparse files: GNU tar manual, "Storing Sparse Files".

void TarReader::sparseFromGnuHeader(TarEntry& entry, const Block& header) {
  if (!isGnu(view(header))) corrupt("a sparse member outside GNU format");
  const auto real = tar::number(tar::raw(view(header), tar::kGnuRealSize));
  if (!real || *real < 0 || *real > kMaxMemberBytes) corrupt("malformed sparse size");
  entry.size = static_cast<uint64_t>(*real);
  sparse_ = true;
  const auto add = [&](std::string_view table) {
    for (; table.size() >= tar::kGnuSparsePartBytes;
         table.remove_prefix(tar::kGnuSparsePartBytes)) {
      if (table[0] == 0) return;  // the rest is unused
      const auto offset = tar::number(table.substr(0, 12));
      const auto length = tar::number(table.substr(12, 12));
      if (!offset || !length || *offset < 0 || *length < 0) corrupt("malformed sparse map");
      parts_.push_back({static_cast<uint64_t>(*offset), static_cast<uint64_t>(*length)});
      if (parts_.size() > kMaxTarSparseParts) {
        throw Error(ErrorKind::kTooLarge, "read tar: a sparse file of too many parts");
      }
    }
  };
  add(tar::raw(view(header), tar::kGnuSparse));
  bool more = tar::raw(view(header), tar::kGnuIsExtended)[0] != 0;
  while (more) {
    Block block;
    readExactly(block);
    add(tar::raw(view(block), tar::kGnuExtensionSparse));
    more = tar::raw(view(block), tar::kGnuExtensionIsExtended)[0] != 0;
  }
}

void TarReader::sparseFromPax(TarEntry& entry, const PaxRecords& records) {
  const std::string* major = lastOf(records, "GNU.sparse.major");
  const std::string* minor = lastOf(records, "GNU.sparse.minor");
  const std::string* map = lastOf(records, "GNU.sparse.map");
  const bool in_content = major && minor && *major == "1" && *minor == "0";
  if (!in_content && !map && !lastOf(records, "GNU.sparse.offset")) return;
  sparse_ = true;
  if (const std::string* name = lastOf(records, "GNU.sparse.name")) {
    if (name->find('\0') != std::string::npos) corrupt("a sparse name with a NUL byte");
    entry.path = *name;
  }
  const std::string* size = lastOf(records, "GNU.sparse.realsize");
  if (!size) size = lastOf(records, "GNU.sparse.size");
  const auto real = size ? tar::decimal(*size) : std::nullopt;
  if (!real || *real > uint64_t{kMaxMemberBytes}) corrupt("malformed sparse size");
  entry.size = *real;
  if (in_content) return sparseFromContent();

  std::vector<uint64_t> numbers;
  const auto take = [&](std::string_view text) {
    const auto value = tar::decimal(text);
    if (!value) corrupt("malformed sparse map");
    numbers.push_back(*value);
  };
  if (map) {
    for (std::string_view rest = *map;;) {
      const size_t comma = rest.find(',');
      take(rest.substr(0, comma));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  } else {  // 0.0: one record per number, offset and length alternating
    for (const auto& [key, value] : records) {
      const bool length = numbers.size() % 2 != 0;
      if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes") {
        if (length != (key == "GNU.sparse.numbytes")) corrupt("malformed sparse map");
        take(value);
      }
    }
  }
  if (numbers.size() % 2 != 0) corrupt("malformed sparse map");
  for (size_t i = 0; i < numbers.size(); i += 2) parts_.push_back({numbers[i], numbers[i + 1]});
}

// PAX 1.0: the map stands before the data as decimal lines, padded to a block.
void TarReader::sparseFromContent() {
  Block block;
  size_t used = block.size();
  const auto number = [&] {
    std::string text;
    for (;;) {
      if (used == block.size()) {
        if (left_ < block.size()) corrupt("a sparse map is cut off");
        readExactly(block);
        left_ -= block.size();
        used = 0;
      }
      const char c = block[used++];
      if (c == '\n') break;
      text.push_back(c);
      if (text.size() > 20) corrupt("malformed sparse map");
    }
    const auto value = tar::decimal(text);
    if (!value) corrupt("malformed sparse map");
    return *value;
  };
  const uint64_t count = number();
  if (count > kMaxTarSparseParts) {
    throw Error(ErrorKind::kTooLarge, "read tar: a sparse file of too many parts");
  }
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = number();
    parts_.push_back({offset, number()});
  }
}

void TarReader::checkSparse(const TarEntry& entry) {
  uint64_t end = 0, stored = 0;
  for (const Part& part : parts_) {
    if (part.offset < end || part.offset > entry.size || part.length > entry.size - part.offset) {
      corrupt("the sparse map of " + quotePath(entry.path) + " is not in order");
    }
    end = part.offset + part.length;
    stored += part.length;
  }
  if (stored != left_) corrupt("the sparse map of " + quotePath(entry.path) + " misses its data");
}

}  // namespace hull::image
