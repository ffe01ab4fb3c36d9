#include "image/archive/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "image/layer/path.h"
#include "image/layer/tar_reader.h"
#include "image/store/codec.h"

namespace hull::image {

namespace {

constexpr int kMaxLinkHops = 8;

class SliceSource final : public Source {
 public:
  SliceSource(int fd, uint64_t offset, uint64_t size) : fd_(fd), offset_(offset), left_(size) {}
  size_t read(std::span<std::byte> into) override {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(into.size(), left_));
    if (size == 0) return 0;
    const size_t got = preadFull(fd_, into.first(size), offset_);
    if (got != size) throw Error(ErrorKind::kCorrupt, "the spooled archive is cut short");
    offset_ += got;
    left_ -= got;
    return got;
  }

 private:
  int fd_;
  uint64_t offset_;
  uint64_t left_;
};

Fd namelessFile(const std::string& folder) {
  Fd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) throw sysError("create a temporary file in " + folder);
  return fd;
}

std::string folderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

ArchiveSpool::ArchiveSpool(Source& archive, const std::string& folder)
    : file_(namelessFile(folder)) {
  DecodingSource decoded(archive);
  TarReader tar(decoded);
  uint64_t end = 0;
  while (const auto entry = tar.next()) {
    if (members_.size() >= kMaxArchiveMembers) {
      throw Error(ErrorKind::kTooLarge,
                  "archive has more than " + std::to_string(kMaxArchiveMembers) + " members");
    }
    const std::string path = cleanPath(entry->path);
    Member member;
    if (entry->type == EntryType::kFile) {
      if (entry->size > kMaxArchiveBytes - end) {
        throw Error(ErrorKind::kTooLarge,
                    "archive is larger than " + std::to_string(kMaxArchiveBytes) + " bytes");
      }
      member = {end, entry->size, ""};
      tar.content([&](uint64_t offset, std::span<const std::byte> bytes) {
        pwriteFull(file_.get(), bytes, end + offset);
      });
      end += entry->size;
      if (ftruncate(file_.get(), static_cast<off_t>(end)) < 0) throw sysError("spool archive");
    } else if (entry->type == EntryType::kSymlink) {
      member.link = entry->link.starts_with('/') ? cleanPath(entry->link)
                                                 : cleanPath(folderOf(path) + "/" + entry->link);
    } else if (entry->type == EntryType::kHardlink) {
      member.link = cleanPath(entry->link);
    } else {
      continue;
    }
    members_[path] = std::move(member);
  }
  if (!tar.endMarked()) throw Error(ErrorKind::kCorrupt, "the archive is empty or cut off");
  tar.drain();
}

const ArchiveSpool::Member* ArchiveSpool::find(std::string_view path) const {
  std::string name;
  try {
    name = cleanPath(path);
  } catch (const Error&) {
    return nullptr;  // no member has such a name
  }
  for (int hop = 0; hop <= kMaxLinkHops; ++hop) {
    const auto it = members_.find(name);
    if (it == members_.end()) return nullptr;
    if (it->second.link.empty()) return &it->second;
    name = it->second.link;
  }
  return nullptr;
}

const ArchiveSpool::Member& ArchiveSpool::get(std::string_view path) const {
  if (const Member* member = find(path)) return *member;
  throw Error(ErrorKind::kCorrupt, "archive has no file " + quotePath(path));
}

bool ArchiveSpool::has(std::string_view path) const {
  return find(path) != nullptr;
}

uint64_t ArchiveSpool::size(std::string_view path) const {
  return get(path).size;
}

std::unique_ptr<Source> ArchiveSpool::open(std::string_view path) const {
  const Member& member = get(path);
  return std::make_unique<SliceSource>(file_.get(), member.offset, member.size);
}

std::string ArchiveSpool::read(std::string_view path, size_t limit) const {
  const auto source = open(path);
  return readAll(*source, limit, "archive member " + quotePath(path));
}

}  // namespace hull::image
