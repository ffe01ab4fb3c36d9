// The writing half of LayerTarWriter: ustar headers, with a PAX header in front where ustar cannot
// say it (long names, large numbers, fractions of seconds, extended attributes). The same entries
// give the same bytes.
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "image/layer/path.h"
#include "image/layer/tar_fields.h"
#include "image/layer/tar_reader.h"
#include "image/store/layer_store.h"

namespace hull::image {

namespace {

constexpr size_t kCopyBytes = 256 * 1024;
constexpr uint64_t kMaxOctal7 = 07777777;       // in a field of 8
constexpr uint64_t kMaxOctal11 = 077777777777;  // in a field of 12

using Block = std::array<char, kTarBlockBytes>;

void putText(Block& block, tar::Field field, std::string_view text) {
  std::memcpy(block.data() + field.offset, text.data(), std::min(text.size(), field.size));
}
void putOctal(Block& block, tar::Field field, uint64_t value) {
  putText(block, field, fmt::format("{:0{}o}", value, field.size - 1));
}

void putChecksum(Block& block) {
  putText(block, tar::kChecksum, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  putText(block, tar::kChecksum, fmt::format("{:06o}", sum));
  block[tar::kChecksum.offset + 6] = '\0';
}

// "LENGTH KEY=VALUE\n", where LENGTH counts itself.
std::string paxRecord(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) {
    length = std::to_string(length).size() + rest;
  }
  return fmt::format("{} {}={}\n", length, key, value);
}

struct Member {
  std::string path;
  char flag = '0';
  uint64_t size = 0;
};

Member memberOf(const Entry& entry) {
  const auto within = [](const std::string& folder, const std::string& name) {
    return folder.empty() ? name : folder + "/" + name;
  };
  switch (entry.type) {
    case EntryType::kFile:
      return {entry.path, '0', entry.size};
    case EntryType::kDirectory:
      return {entry.path.empty() ? "./" : entry.path + "/", '5'};
    case EntryType::kSymlink:
      return {entry.path, '2'};
    case EntryType::kHardlink:
      return {entry.path, '1'};
    case EntryType::kCharDevice:
      return {entry.path, '3'};
    case EntryType::kBlockDevice:
      return {entry.path, '4'};
    case EntryType::kFifo:
      return {entry.path, '6'};
    case EntryType::kOpaque:
      return {within(entry.path, ".wh..wh..opq"), '0'};
    case EntryType::kWhiteout: {
      const size_t slash = entry.path.rfind('/');
      if (slash == std::string::npos) return {".wh." + entry.path, '0'};
      return {within(entry.path.substr(0, slash), ".wh." + entry.path.substr(slash + 1)), '0'};
    }
  }
  throw Error(ErrorKind::kInternal, "write tar: unknown entry type");
}

std::string paxTime(const Entry& entry) {
  if (entry.mtime_seconds >= 0 || entry.mtime_nanoseconds == 0) {
    return fmt::format("{}.{:09}", entry.mtime_seconds, entry.mtime_nanoseconds);
  }
  // "-0.5" is half a second before 1970: seconds -1 and 500000000 nanoseconds.
  return fmt::format("-{}.{:09}", -(entry.mtime_seconds + 1),
                     1'000'000'000 - entry.mtime_nanoseconds);
}

std::string paxRecords(const Entry& entry, const Member& member) {
  std::string records;
  const auto add = [&](std::string_view key, std::string_view value) {
    records += paxRecord(key, value);
  };
  if (member.path.size() > tar::kName.size) add("path", member.path);
  if (entry.link.size() > tar::kLink.size) add("linkpath", entry.link);
  if (member.size > kMaxOctal11) add("size", std::to_string(member.size));
  if (entry.uid > kMaxOctal7) add("uid", std::to_string(entry.uid));
  if (entry.gid > kMaxOctal7) add("gid", std::to_string(entry.gid));
  if (entry.mtime_nanoseconds != 0 || entry.mtime_seconds < 0 ||
      static_cast<uint64_t>(entry.mtime_seconds) > kMaxOctal11) {
    add("mtime", paxTime(entry));
  }
  for (const auto& [name, value] : entry.xattrs) add("SCHILY.xattr." + name, value);
  return records;
}

uint64_t orZero(uint64_t value, uint64_t most) {
  return value > most ? 0 : value;
}

Block headerOf(const Entry& entry, const Member& member) {
  Block block{};
  putText(block, tar::kName, member.path);
  putOctal(block, tar::kMode, entry.mode);
  putOctal(block, tar::kUid, orZero(entry.uid, kMaxOctal7));
  putOctal(block, tar::kGid, orZero(entry.gid, kMaxOctal7));
  putOctal(block, tar::kSize, orZero(member.size, kMaxOctal11));
  const auto seconds = static_cast<uint64_t>(std::max<int64_t>(entry.mtime_seconds, 0));
  putOctal(block, tar::kMtime, orZero(seconds, kMaxOctal11));
  block[tar::kType.offset] = member.flag;
  putText(block, tar::kLink, entry.link);
  putText(block, tar::kMagic,
          std::string_view("ustar\0"
                           "00",
                           8));
  putOctal(block, tar::kMajor, entry.device_major);
  putOctal(block, tar::kMinor, entry.device_minor);
  putChecksum(block);
  return block;
}

}  // namespace

struct LayerTarWriter::State {
  Sink& out;
  std::vector<std::byte> buffer = std::vector<std::byte>(kCopyBytes);

  void block(const Block& bytes) { out.write(std::as_bytes(std::span(bytes))); }
  void pad(uint64_t size) {
    static constexpr Block kZeros{};
    const size_t padding = (kTarBlockBytes - size % kTarBlockBytes) % kTarBlockBytes;
    out.write(std::as_bytes(std::span(kZeros)).first(padding));
  }

  void content(const Entry& entry, int data_fd) {
    uint64_t offset = entry.data_offset;
    for (uint64_t left = entry.size; left > 0;) {
      const auto piece =
          std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(left, buffer.size())));
      if (data_fd < 0 || preadFull(data_fd, piece, offset) != piece.size()) {
        throw Error(ErrorKind::kCorrupt,
                    "write tar: the content of " + quotePath(entry.path) + " is not in the store");
      }
      out.write(std::span<const std::byte>(piece));
      offset += piece.size();
      left -= piece.size();
    }
    pad(entry.size);
  }
};

LayerTarWriter::LayerTarWriter(Sink& out) : state_(std::make_unique<State>(State{out})) {}
LayerTarWriter::~LayerTarWriter() = default;

void LayerTarWriter::add(const Entry& entry, int data_fd) {
  const Member member = memberOf(entry);
  if (const std::string records = paxRecords(entry, member); !records.empty()) {
    Member pax{"PaxHeaders/" + member.path.substr(0, 80), 'x', records.size()};
    Entry plain;
    plain.mode = 0644;
    state_->block(headerOf(plain, pax));
    state_->out.write(records);
    state_->pad(records.size());
  }
  state_->block(headerOf(entry, member));
  if (entry.type == EntryType::kFile) state_->content(entry, data_fd);
}

void LayerTarWriter::finish() {
  state_->block({});
  state_->block({});
}

}  // namespace hull::image
