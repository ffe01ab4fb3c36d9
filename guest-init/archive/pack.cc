#include "guest-init/archive/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "base/error.h"
#include "guest-init/system/xattrs.h"

namespace hull::guest {

namespace {

constexpr size_t kCopyBytes = 64 * 1024;
constexpr const char* kOpaqueXattr = "trusted.overlay.opaque";

std::vector<std::string> sortedNames(const Fd& directory) {
  // A descriptor of its own: fdopendir takes it over.
  Fd again = openFileAt(directory.get(), ".", O_RDONLY | O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(again.get()), closedir);
  if (!listing) throw sysError("read directory");
  again.release();
  std::vector<std::string> names;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

class Packer {
 public:
  Packer(PackKind kind, TarWriter& out) : kind_(kind), out_(out) {}

  void contents(const Fd& directory, const std::string& prefix, size_t depth) {
    if (depth > kMaxTreeDepth) throw Error(ErrorKind::kTooLarge, "pack " + prefix + ": too deep");
    for (const std::string& name : sortedNames(directory)) {
      object(directory, name, prefix.empty() ? name : prefix + '/' + name, depth);
    }
  }

  void object(const Fd& directory, const std::string& name, const std::string& path, size_t depth) {
    struct stat info;
    if (fstatat(directory.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
      if (errno == ENOENT) return;  // gone since it was listed
      throw sysError("pack " + path);
    }
    if (S_ISSOCK(info.st_mode)) return;  // tar has no sockets
    if (kind_ == PackKind::kLayer && S_ISCHR(info.st_mode) && info.st_rdev == 0) {
      return whiteout(path);
    }
    // The calls without symlink following take paths only.
    if (fchdir(directory.get()) < 0) throw sysError("pack " + path);
    TarEntry entry = describe(info, path);
    entry.xattrs = readXattrsOf(name);
    if (S_ISDIR(info.st_mode)) return subdirectory(directory, name, std::move(entry), depth);
    if (S_ISLNK(info.st_mode)) entry.link = readLink(directory, name, path);
    if (info.st_nlink > 1) {
      const auto [first, fresh] = links_.try_emplace({info.st_dev, info.st_ino}, path);
      if (!fresh) {
        entry.type = TarType::kHardLink;
        entry.link = first->second;
        entry.xattrs.clear();
        entry.size = 0;
      }
    }
    if (entry.type == TarType::kFile) return file(directory, name, std::move(entry));
    out_.add(entry);
  }

 private:
  static TarEntry describe(const struct stat& info, const std::string& path) {
    TarEntry entry;
    entry.path = path;
    entry.mode = info.st_mode & 07777;
    entry.uid = info.st_uid;
    entry.gid = info.st_gid;
    entry.mtime_s = info.st_mtim.tv_sec;
    entry.mtime_ns = static_cast<uint32_t>(info.st_mtim.tv_nsec);
    switch (info.st_mode & S_IFMT) {
      case S_IFDIR:
        entry.type = TarType::kDirectory;
        break;
      case S_IFLNK:
        entry.type = TarType::kSymlink;
        break;
      case S_IFIFO:
        entry.type = TarType::kFifo;
        break;
      case S_IFCHR:
      case S_IFBLK:
        entry.type = S_ISCHR(info.st_mode) ? TarType::kCharacter : TarType::kBlock;
        entry.device_major = major(info.st_rdev);
        entry.device_minor = minor(info.st_rdev);
        break;
      default:
        entry.type = TarType::kFile;
    }
    return entry;
  }

  // OCI image spec, "Whiteouts": an empty file named after what it hides.
  void whiteout(const std::string& path) {
    TarEntry entry;
    const size_t slash = path.rfind('/');
    entry.path = slash == std::string::npos
                     ? ".wh." + path
                     : path.substr(0, slash + 1) + ".wh." + path.substr(slash + 1);
    out_.add(entry);
  }

  void subdirectory(const Fd& directory, const std::string& name, TarEntry entry, size_t depth) {
    const bool opaque = kind_ == PackKind::kLayer && readXattrOf(name, kOpaqueXattr) == "y";
    const Fd below = openFileAt(directory.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    out_.add(entry);
    if (opaque) {
      TarEntry mark;
      mark.path = entry.path + "/.wh..wh..opq";
      out_.add(mark);
    }
    contents(below, entry.path, depth + 1);
  }

  static std::string readLink(const Fd& directory, const std::string& name,
                              const std::string& path) {
    std::array<char, kMaxTarPathBytes> target;
    const ssize_t size = readlinkat(directory.get(), name.c_str(), target.data(), target.size());
    if (size < 0) throw sysError("pack " + path);
    return {target.data(), static_cast<size_t>(size)};
  }

  // The size in the header binds: a file that grows is cut, one that shrinks is filled up.
  void file(const Fd& directory, const std::string& name, TarEntry entry) {
    const Fd content =
        openFileAt(directory.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    entry.size = fileSize(content.get());
    out_.add(entry);
    std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(kCopyBytes, entry.size)));
    for (uint64_t left = entry.size; left > 0;) {
      const auto piece =
          std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(buffer.size(), left)));
      const size_t got = readFull(content.get(), piece);
      std::fill(piece.begin() + static_cast<std::ptrdiff_t>(got), piece.end(), std::byte{0});
      out_.content(piece);
      left -= piece.size();
    }
  }

  PackKind kind_;
  TarWriter& out_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;  // first path of each linked file
};

}  // namespace

void packContents(const Fd& directory, const std::string& prefix, PackKind kind, TarWriter& out) {
  Packer(kind, out).contents(directory, prefix, 0);
}

void packObject(const Fd& directory, const std::string& name, const std::string& as,
                TarWriter& out) {
  Packer(PackKind::kPlain, out).object(directory, name, as, 0);
}

}  // namespace hull::guest
