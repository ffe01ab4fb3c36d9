#include <array>
#include <cstring>

#include "base/error.h"
#include "guest-init/archive/tar.h"
#include "guest-init/archive/tar_format.h"

namespace hull::guest {

namespace {

using Block = std::array<char, kTarBlockBytes>;

constexpr uint64_t kMaxOctal7 = 07777777;       // fields of 8 bytes
constexpr uint64_t kMaxOctal11 = 077777777777;  // fields of 12 bytes
constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";

void putText(Block& block, ustar::Field field, std::string_view text) {
  std::memcpy(block.data() + field.offset, text.data(), std::min(text.size(), field.size));
}

// Zero-filled octal and a NUL; what does not fit was put into the pax header instead.
void putOctal(Block& block, ustar::Field field, uint64_t value, uint64_t limit) {
  if (value > limit) value = 0;
  for (size_t i = field.size - 1; i-- > 0; value >>= 3) {
    block[field.offset + i] = static_cast<char>('0' + (value & 7));
  }
}

// "<length> <key>=<value>\n", the length counting itself.
void addRecord(std::string& records, std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t total = rest + 1;
  while (rest + std::to_string(total).size() > total) ++total;
  records += std::to_string(total);
  records += ' ';
  records += key;
  records += '=';
  records += value;
  records += '\n';
}

std::string paxTime(int64_t seconds, uint32_t nanoseconds) {
  // A time before the epoch counts down: −0.25 s is second −1, nanosecond 750000000.
  const bool negative = seconds < 0;
  if (negative && nanoseconds != 0) {
    ++seconds;
    nanoseconds = 1000000000 - nanoseconds;
  }
  std::string text = negative && seconds == 0 ? "-0" : std::to_string(seconds);
  if (nanoseconds == 0) return text;
  std::string fraction = std::to_string(nanoseconds);
  fraction.insert(0, 9 - fraction.size(), '0');
  while (fraction.back() == '0') fraction.pop_back();
  return text + '.' + fraction;
}

bool fitsUstar(std::string_view text) {
  if (text.size() > ustar::kName.size) return false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

std::string paxRecords(const TarEntry& entry, std::string_view path) {
  std::string records;
  if (!fitsUstar(path)) addRecord(records, "path", path);
  if (!fitsUstar(entry.link)) addRecord(records, "linkpath", entry.link);
  if (entry.size > kMaxOctal11) addRecord(records, "size", std::to_string(entry.size));
  if (entry.uid > kMaxOctal7) addRecord(records, "uid", std::to_string(entry.uid));
  if (entry.gid > kMaxOctal7) addRecord(records, "gid", std::to_string(entry.gid));
  if (entry.mtime_ns != 0 || entry.mtime_s < 0 ||
      static_cast<uint64_t>(entry.mtime_s) > kMaxOctal11) {
    addRecord(records, "mtime", paxTime(entry.mtime_s, entry.mtime_ns));
  }
  for (const auto& [name, value] : entry.xattrs) {
    addRecord(records, std::string(kXattrPrefix) + name, value);
  }
  return records;
}

}  // namespace

void TarWriter::header(const TarEntry& entry, std::string_view path, std::string_view link,
                       char type, uint64_t size) {
  Block block{};
  putText(block, ustar::kName, path);
  putOctal(block, ustar::kMode, entry.mode & 07777, kMaxOctal7);
  putOctal(block, ustar::kUid, entry.uid, kMaxOctal7);
  putOctal(block, ustar::kGid, entry.gid, kMaxOctal7);
  putOctal(block, ustar::kSize, size, kMaxOctal11);
  putOctal(block, ustar::kMtime, entry.mtime_s < 0 ? 0 : static_cast<uint64_t>(entry.mtime_s),
           kMaxOctal11);
  block[ustar::kType] = type;
  putText(block, ustar::kLink, link);
  putText(block, ustar::kMagic, std::string_view("ustar\0", 6));
  putText(block, ustar::kVersion, "00");
  putOctal(block, ustar::kMajor, entry.device_major, kMaxOctal7);
  putOctal(block, ustar::kMinor, entry.device_minor, kMaxOctal7);
  putText(block, ustar::kChecksum, "        ");
  uint64_t sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  putOctal(block, {ustar::kChecksum.offset, 7}, sum, kMaxOctal7);
  block[ustar::kChecksum.offset + 6] = '\0';
  out_.write(std::as_bytes(std::span(block)));
}

void TarWriter::add(const TarEntry& entry) {
  if (left_ != 0) throw Error(ErrorKind::kInternal, "write tar: content of an entry is missing");
  std::string path = entry.path;
  if (entry.type == TarType::kDirectory && !path.ends_with('/')) path += '/';
  const std::string records = paxRecords(entry, path);
  if (!records.empty()) {
    TarEntry extended;
    extended.mode = 0644;
    header(extended, "PaxHeaders.0/entry", "", 'x', records.size());
    out_.write(records);
    written_ = records.size();
    pad();
  }
  left_ = entry.type == TarType::kFile ? entry.size : 0;
  written_ = 0;
  header(entry, path, entry.link, static_cast<char>(entry.type), left_);
}

void TarWriter::content(std::span<const std::byte> bytes) {
  if (bytes.size() > left_) throw Error(ErrorKind::kInternal, "write tar: too much content");
  out_.write(bytes);
  left_ -= bytes.size();
  written_ += bytes.size();
  if (left_ == 0) pad();
}

void TarWriter::pad() {
  static constexpr Block kZeros{};
  const size_t over = written_ % kTarBlockBytes;
  if (over != 0) out_.write(std::as_bytes(std::span(kZeros).first(kTarBlockBytes - over)));
  written_ = 0;
}

void TarWriter::finish() {
  if (left_ != 0) throw Error(ErrorKind::kInternal, "write tar: content of an entry is missing");
  static constexpr std::array<char, 2 * kTarBlockBytes> kEnd{};
  out_.write(std::as_bytes(std::span(kEnd)));
}

}  // namespace hull::guest
