#include <array>
#include <cstring>

#include "base/error.h"
#include "guest-init/archive/tar.h"
#include "guest-init/archive/tar_format.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";
constexpr size_t kMaxXattrNameBytes = 255;
constexpr size_t kMaxExtensionsPerEntry = 8;  // pax, GNU long name, GNU long link, globals
constexpr uint64_t kMaxDeviceNumber = 0xfffff;

[[noreturn]] void corrupt(const char* what) {
  throw Error(ErrorKind::kCorrupt, std::string("read tar: ") + what);
}

std::string_view fieldText(const char* block, ustar::Field field) {
  const std::string_view raw(block + field.offset, field.size);
  return raw.substr(0, raw.find('\0'));
}

// Octal with spaces or NULs around it, or GNU's base 256 when the first bit is set.
uint64_t fieldNumber(const char* block, ustar::Field field) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(block + field.offset);
  if ((bytes[0] & 0x80) != 0) {
    if (bytes[0] != 0x80) corrupt("negative or oversized number");
    uint64_t value = 0;
    for (size_t i = 1; i < field.size; ++i) {
      if (value >> 56 != 0) corrupt("oversized number");
      value = value << 8 | bytes[i];
    }
    return value;
  }
  std::string_view text = fieldText(block, field);
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (text.empty()) return 0;
  const auto value = parseNumber(text, 8);
  if (!value) corrupt("bad number");
  return *value;
}

bool checksumMatches(const char* block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlockBytes; ++i) {
    const bool own =
        i >= ustar::kChecksum.offset && i < ustar::kChecksum.offset + ustar::kChecksum.size;
    sum += own ? ' ' : static_cast<unsigned char>(block[i]);
  }
  return fieldNumber(block, ustar::kChecksum) == sum;
}

bool isZero(const char* block) {
  for (size_t i = 0; i < kTarBlockBytes; ++i) {
    if (block[i] != 0) return false;
  }
  return true;
}

std::string headerPath(const char* block) {
  std::string path(fieldText(block, ustar::kName));
  // GNU's own format (magic "ustar  ") keeps other things where the prefix is.
  const bool posix = std::memcmp(block + ustar::kMagic.offset, "ustar\0", 6) == 0;
  const std::string_view prefix = posix ? fieldText(block, ustar::kPrefix) : std::string_view();
  if (!prefix.empty()) path = std::string(prefix) + '/' + path;
  return path;
}

void parseTime(std::string_view text, TarEntry& entry) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const size_t dot = text.find('.');
  const auto seconds = parseNumber<int64_t>(text.substr(0, dot));
  std::string fraction(dot == std::string_view::npos ? "0" : text.substr(dot + 1));
  fraction.resize(9, '0');  // finer than the file system knows is cut off
  const auto nanoseconds = parseNumber<uint32_t>(fraction);
  if (!seconds || !nanoseconds) corrupt("bad time");
  entry.mtime_s = negative ? -*seconds : *seconds;
  entry.mtime_ns = *nanoseconds;
  if (negative && entry.mtime_ns != 0) {
    --entry.mtime_s;
    entry.mtime_ns = 1000000000 - entry.mtime_ns;
  }
}

template <typename T>
void overrideNumber(const std::map<std::string, std::string>& records, const char* key, T& value) {
  const auto found = records.find(key);
  if (found == records.end()) return;
  const auto number = parseNumber<T>(found->second);
  if (!number) corrupt("bad number in pax header");
  value = *number;
}

void applyRecords(const std::map<std::string, std::string>& records, TarEntry& entry) {
  overrideNumber(records, "size", entry.size);
  overrideNumber(records, "uid", entry.uid);
  overrideNumber(records, "gid", entry.gid);
  if (const auto time = records.find("mtime"); time != records.end()) {
    parseTime(time->second, entry);
  }
  for (const auto& [key, value] : records) {
    if (!key.starts_with(kXattrPrefix)) continue;
    const std::string name = key.substr(kXattrPrefix.size());
    if (name.empty() || name.size() > kMaxXattrNameBytes) corrupt("bad attribute name");
    if (entry.xattrs.size() == kMaxEntryXattrs) corrupt("too many attributes");
    entry.xattrs[name] = value;
  }
}

TarType typeOf(char type, const std::string& path) {
  switch (type) {
    case '\0':
    case '0':
    case '7':  // "contiguous", treated as a file
      return path.ends_with('/') ? TarType::kDirectory : TarType::kFile;
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
      return static_cast<TarType>(type);
    default:
      corrupt("unknown entry type");
  }
}

uint32_t narrow(uint64_t value, uint64_t limit, const char* what) {
  if (value > limit) corrupt(what);
  return static_cast<uint32_t>(value);
}

}  // namespace

bool TarReader::readBlock(char* block) {
  size_t done = 0;
  while (done < kTarBlockBytes) {
    const size_t got =
        in_.read(std::as_writable_bytes(std::span(block + done, kTarBlockBytes - done)));
    if (got == 0) break;
    done += got;
  }
  if (done != 0 && done != kTarBlockBytes) corrupt("truncated");
  return done == kTarBlockBytes;
}

void TarReader::skip(uint64_t bytes) {
  std::array<std::byte, 16384> ignored;
  while (bytes > 0) {
    const size_t got =
        in_.read(std::span(ignored).first(std::min<uint64_t>(ignored.size(), bytes)));
    if (got == 0) corrupt("truncated");
    bytes -= got;
  }
}

size_t TarReader::content(std::span<std::byte> into) {
  const auto wanted = static_cast<size_t>(std::min<uint64_t>(into.size(), left_));
  if (wanted == 0) return 0;
  const size_t got = in_.read(into.first(wanted));
  if (got == 0) corrupt("truncated");
  left_ -= got;
  return got;
}

std::string TarReader::readMember(uint64_t size, const char* what) {
  if (size > kMaxPaxHeaderBytes) {
    throw Error(ErrorKind::kTooLarge, std::string("read tar: ") + what + " too large");
  }
  std::string text(static_cast<size_t>(size), '\0');
  left_ = size;
  for (size_t done = 0; done < text.size();) {
    done += content(std::as_writable_bytes(std::span(text.data() + done, text.size() - done)));
  }
  skip((kTarBlockBytes - size % kTarBlockBytes) % kTarBlockBytes);
  return text;
}

void TarReader::parsePax(std::string_view text, std::map<std::string, std::string>& records) {
  while (!text.empty()) {
    const size_t space = text.find(' ');
    const auto length = parseNumber<size_t>(text.substr(0, space));
    if (space == std::string_view::npos || !length || *length <= space + 1 ||
        *length > text.size() || text[*length - 1] != '\n') {
      corrupt("bad pax record");
    }
    const std::string_view record = text.substr(space + 1, *length - space - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) corrupt("bad pax record");
    records[std::string(record.substr(0, equals))] = record.substr(equals + 1);
    text.remove_prefix(*length);
  }
}

TarEntry TarReader::makeEntry(const char* block, Extended extended) {
  auto& records = extended.records;
  records.insert(global_.begin(), global_.end());  // an entry's own records win
  TarEntry entry;
  entry.path = extended.path ? *extended.path : headerPath(block);
  entry.link = extended.link ? *extended.link : fieldText(block, ustar::kLink);
  if (const auto path = records.find("path"); path != records.end()) entry.path = path->second;
  if (const auto link = records.find("linkpath"); link != records.end()) entry.link = link->second;
  if (entry.path.size() > kMaxTarPathBytes || entry.link.size() > kMaxTarPathBytes) {
    throw Error(ErrorKind::kTooLarge, "read tar: path too long");
  }
  if (entry.path.find('\0') != std::string::npos || entry.link.find('\0') != std::string::npos) {
    corrupt("path with a zero byte");
  }
  for (const auto& [key, value] : records) {
    if (key.starts_with("GNU.sparse.")) corrupt("sparse files are not supported");
  }
  entry.type = typeOf(block[ustar::kType], entry.path);
  entry.mode = static_cast<uint32_t>(fieldNumber(block, ustar::kMode) & 07777);
  entry.uid = narrow(fieldNumber(block, ustar::kUid), UINT32_MAX, "bad uid");
  entry.gid = narrow(fieldNumber(block, ustar::kGid), UINT32_MAX, "bad gid");
  entry.size = fieldNumber(block, ustar::kSize);
  entry.mtime_s =
      static_cast<int64_t>(std::min<uint64_t>(fieldNumber(block, ustar::kMtime), INT64_MAX));
  if (entry.type == TarType::kCharacter || entry.type == TarType::kBlock) {
    entry.device_major =
        narrow(fieldNumber(block, ustar::kMajor), kMaxDeviceNumber, "bad device number");
    entry.device_minor =
        narrow(fieldNumber(block, ustar::kMinor), kMaxDeviceNumber, "bad device number");
  }
  applyRecords(records, entry);
  if (entry.size > kMaxTarFileBytes) throw Error(ErrorKind::kTooLarge, "read tar: file too large");
  while (entry.path.size() > 1 && entry.path.ends_with('/')) entry.path.pop_back();
  // Some writers give links and directories a size that no content follows.
  if (entry.type != TarType::kFile) entry.size = 0;
  return entry;
}

std::optional<TarEntry> TarReader::next() {
  skip(left_ + padding_);
  left_ = padding_ = 0;
  Extended extended;
  for (size_t extensions = 0; extensions <= kMaxExtensionsPerEntry; ++extensions) {
    char block[kTarBlockBytes];
    // Some writers leave the end blocks out.
    if (!readBlock(block) || isZero(block)) {
      if (extensions != 0) corrupt("truncated");
      return std::nullopt;
    }
    if (!checksumMatches(block)) corrupt("bad header checksum");
    const uint64_t size = fieldNumber(block, ustar::kSize);
    switch (block[ustar::kType]) {
      case 'x':
        parsePax(readMember(size, "pax header"), extended.records);
        continue;
      case 'g':
        parsePax(readMember(size, "global pax header"), global_);
        if (global_.size() > kMaxEntryXattrs) corrupt("too many global records");
        continue;
      case 'L':
        extended.path = readMember(size, "long name");
        extended.path->resize(std::min(extended.path->size(), extended.path->find('\0')));
        continue;
      case 'K':
        extended.link = readMember(size, "long link");
        extended.link->resize(std::min(extended.link->size(), extended.link->find('\0')));
        continue;
      default:
        break;
    }
    TarEntry entry = makeEntry(block, std::move(extended));
    left_ = entry.size;
    padding_ = (kTarBlockBytes - entry.size % kTarBlockBytes) % kTarBlockBytes;
    return entry;
  }
  corrupt("too many extension headers");
}

}  // namespace hull::guest
