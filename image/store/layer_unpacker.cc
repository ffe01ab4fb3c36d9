#include "image/store/layer_unpacker.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "image/layer/index_codec.h"
#include "image/layer/path.h"

namespace hull::image {

namespace {

constexpr size_t kWriteBufferBytes = 1 << 20;
constexpr size_t kIndexFlushBytes = 1 << 20;
constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kAufsPrefix = ".wh..wh.";  // AUFS keeps its own books in such names
constexpr std::string_view kOpaqueMarker = ".wh..wh..opq";
constexpr size_t kMarkBytes = kOpaqueMarker.size() + 1;  // what a mark adds to a path at most

uint64_t alignUp(uint64_t size) {
  return (size + kContentAlignment - 1) / kContentAlignment * kContentAlignment;
}

std::pair<std::string, std::string> splitPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

// Calls `visit` for each part of the path but the last.
template <typename Visit>
void forEachParent(std::string_view path, Visit visit) {
  for (size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/')) {
    visit(path.substr(0, slash));
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

DataFileWriter::DataFileWriter(const std::string& path)
    : fd_(openFile(path, O_WRONLY | O_CREAT | O_EXCL, 0600)) {
  buffer_.reserve(kWriteBufferBytes);
}

void DataFileWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kWriteBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    bytes = bytes.subspan(size);
    if (buffer_.size() == kWriteBufferBytes) flush();
  }
}

void DataFileWriter::extendTo(uint64_t offset) {
  const uint64_t gap = offset - this->offset();
  if (gap <= kWriteBufferBytes - buffer_.size()) {
    buffer_.resize(buffer_.size() + static_cast<size_t>(gap));
    return;
  }
  flush();
  written_ = offset;  // nothing is written there: a hole
}

void DataFileWriter::flush() {
  inContext("write layer", [&] { pwriteFull(fd_.get(), buffer_, written_); });
  written_ += buffer_.size();
  buffer_.clear();
  write_back_.written(fd_.get(), written_);
}

void DataFileWriter::finish() {
  flush();
  if (ftruncate(fd_.get(), static_cast<off_t>(written_)) < 0) throw sysError("write layer");
  if (fsync(fd_.get()) < 0) throw sysError("sync layer");
}

LayerUnpacker::LayerUnpacker(const std::string& folder, const LayerLimits& limits,
                             std::vector<FileContent>* contents)
    : limits_(limits),
      contents_(contents),
      data_(folder + "/data"),
      index_(openFile(folder + "/index", O_RDWR | O_CREAT | O_EXCL, 0600)) {
  pending_.raw(encodeIndexHeader(0, 0));
}

void LayerUnpacker::unpack(Source& tar, bool must_end) {
  TarReader reader(tar);
  while (auto member = reader.next()) add(reader, std::move(*member));
  if (!reader.endMarked() && (must_end || entries_ == 0)) {
    throw Error(ErrorKind::kCorrupt, entries_ == 0
                                         ? "read tar: the archive is empty"
                                         : "read tar: the archive is cut off (no end mark)");
  }
  reader.drain();  // what follows belongs to the digest
}

void LayerUnpacker::add(TarReader& tar, TarEntry&& member) {
  if (entries_ >= limits_.max_entries) {
    throw Error(ErrorKind::kTooLarge,
                "layer has more than " + std::to_string(limits_.max_entries) + " entries");
  }
  const std::string path = cleanPath(member.path, kMarkBytes);
  if (addWhiteout(path)) return;
  Entry entry;
  entry.path = cleanPath(path);
  entry.type = member.type;
  if (entry.path.empty() && entry.type != EntryType::kDirectory) {
    throw Error(ErrorKind::kCorrupt,
                "member " + quotePath(member.path) + " stands for the root but is no directory");
  }
  entry.mode = member.mode;
  entry.uid = member.uid;
  entry.gid = member.gid;
  entry.mtime_seconds = member.mtime_seconds;
  entry.mtime_nanoseconds = member.mtime_nanoseconds;
  entry.device_major = member.device_major;
  entry.device_minor = member.device_minor;
  for (auto& [name, value] : member.xattrs) entry.xattrs.emplace_back(name, std::move(value));
  if (entry.type == EntryType::kHardlink) entry.link = cleanPath(member.link);
  if (entry.type == EntryType::kSymlink) entry.link = std::move(member.link);
  const bool is_link = entry.type == EntryType::kHardlink || entry.type == EntryType::kSymlink;
  if (is_link && (entry.link.empty() || entry.link.size() > kMaxSymlinkBytes ||
                  entry.link.find('\0') != std::string::npos)) {
    throw Error(ErrorKind::kCorrupt, "link " + quotePath(entry.path) +
                                         " has the impossible target " + quotePath(entry.link));
  }
  if (entry.type == EntryType::kFile) {
    entry.size = member.size;
    addContent(tar, entry);
  }
  writeEntry(entry);
}

// OCI image-spec layer.md, "Whiteouts".
bool LayerUnpacker::addWhiteout(const std::string& path) {
  bool aufs = false;
  forEachParent(path, [&](std::string_view parent) {
    aufs = aufs || parent.starts_with(kAufsPrefix);
    if (!aufs && parent.starts_with(kWhiteoutPrefix)) {
      throw Error(ErrorKind::kCorrupt, "member " + quotePath(path) + " lies inside a whiteout");
    }
  });
  if (aufs) return true;
  const auto [folder, name] = splitPath(path);
  if (!name.starts_with(kWhiteoutPrefix)) return false;
  Entry entry;
  if (name == kOpaqueMarker) {
    entry.type = EntryType::kOpaque;
    entry.path = folder;
  } else if (name.starts_with(kAufsPrefix)) {
    return true;
  } else {
    const std::string target = name.substr(kWhiteoutPrefix.size());
    if (target.empty() || target == "." || target == "..") {
      throw Error(ErrorKind::kCorrupt, "whiteout " + quotePath(path) + " removes nothing");
    }
    entry.type = EntryType::kWhiteout;
    entry.path = folder.empty() ? target : folder + "/" + target;
  }
  entry.path = cleanPath(entry.path);  // for its bounds
  writeEntry(entry);
  return true;
}

void LayerUnpacker::addContent(TarReader& tar, Entry& entry) {
  const uint64_t start = data_.offset();  // aligned: each content leaves it so
  if (entry.size > limits_.max_unpacked_bytes - std::min(start, limits_.max_unpacked_bytes)) {
    throw Error(ErrorKind::kTooLarge, "layer unpacks to more than " +
                                          std::to_string(limits_.max_unpacked_bytes) + " bytes");
  }
  if (entry.size == 0) return;
  entry.data_offset = start;
  std::optional<Hasher> hasher;
  if (contents_) hasher.emplace();
  uint64_t digested = 0;  // falls short of the size when there are holes
  tar.content([&](uint64_t offset, std::span<const std::byte> bytes) {
    data_.extendTo(start + offset);
    data_.append(bytes);
    digested += bytes.size();
    if (hasher) hasher->update(bytes);
  });
  if (hasher && digested == entry.size)
    contents_->push_back({hasher->finishSha256(), start, entry.size});
  data_.extendTo(alignUp(start + entry.size));
}

void LayerUnpacker::writeEntry(const Entry& entry) {
  encodeEntry(pending_, entry);
  ++entries_;
  if (pending_.bytes().size() >= kIndexFlushBytes) flushIndex();
}

void LayerUnpacker::flushIndex() {
  const std::string bytes = pending_.take();
  pending_ = ByteWriter();
  index_bytes_ += bytes.size();
  if (index_bytes_ > limits_.max_index_bytes) {
    throw Error(ErrorKind::kTooLarge, "layer has more than " +
                                          std::to_string(limits_.max_index_bytes) +
                                          " bytes of names and attributes");
  }
  inContext("write layer", [&] { writeFull(index_.get(), bytes); });
}

void LayerUnpacker::writeOut() {
  data_.flush();
  flushIndex();
  inContext("write layer", [&] {
    pwriteFull(index_.get(), asBytes(encodeIndexHeader(entries_, data_.offset())), 0);
  });
}

void LayerUnpacker::finish() {
  writeOut();
  data_.finish();
  if (fsync(index_.get()) < 0) throw sysError("sync layer");
}

}  // namespace hull::image
