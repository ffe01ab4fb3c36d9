#include "guest-init/archive/unpack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/open_in_root.h"
#include "guest-init/archive/tar.h"
#include "guest-init/system/files.h"
#include "guest-init/system/text.h"
#include "guest-init/system/xattrs.h"

namespace hull::guest {

namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr size_t kMaxDirectories = size_t{1} << 20;  // whose times are set at the end
constexpr size_t kCopyBytes = 64 * 1024;

// The components of an entry's path; "." and empty ones dropped, ".." refused.
std::vector<std::string> componentsOf(const std::string& path) {
  std::vector<std::string> components;
  for (const std::string_view piece : split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece == "..")
      throw Error(ErrorKind::kCorrupt, "unpack " + path + ": leads out of the tree");
    components.emplace_back(piece);
  }
  return components;
}

struct Place {
  Fd parent;         // also the working directory
  std::string name;  // in it
  std::string path;  // inside the root, for messages and second visits
};

class Unpacker {
 public:
  explicit Unpacker(const UnpackTarget& target) : target_(target) {}

  void run(Source& tar) {
    TarReader reader(tar);
    while (const auto entry = reader.next()) add(*entry, reader);
    for (const auto& [path, times] : directory_times_) {
      const Fd directory = openInRoot(target_.root.get(), path, O_RDONLY | O_DIRECTORY);
      if (directory) futimens(directory.get(), times.data());
    }
  }

 private:
  using Times = std::array<timespec, 2>;

  void add(const TarEntry& entry, TarReader& reader) {
    const auto components = componentsOf(entry.path);
    if (components.empty()) {
      if (entry.type == TarType::kDirectory && target_.below) rootAttributes(entry);
      return;
    }
    Place place = enter(components, entry.path);
    if (target_.below && place.name.starts_with(kWhiteoutPrefix)) return whiteout(place);
    if (entry.type == TarType::kDirectory) return directory(place, entry);
    replace(place);
    create(place, entry, reader);
    if (entry.type != TarType::kHardLink) attributes(place, entry);
  }

  // Opens the entry's parent, creating what is missing, and makes it the working directory.
  Place enter(const std::vector<std::string>& components, const std::string& path) {
    Place place{openInRoot(target_.root.get(), target_.directory, O_RDONLY | O_DIRECTORY),
                components.back(), target_.directory};
    if (!place.parent) throw sysError("unpack into " + target_.directory);
    for (size_t i = 0; i + 1 < components.size(); ++i) {
      place.path += '/' + components[i];
      Fd next = openInRoot(target_.root.get(), place.path, O_RDONLY | O_DIRECTORY);
      if (!next && errno == ENOENT) next = makeParent(place.parent, components[i], place.path);
      if (!next) throw sysError("unpack " + path);
      place.parent = std::move(next);
    }
    place.path += '/' + place.name;
    if (fchdir(place.parent.get()) < 0) throw sysError("unpack " + path);
    return place;
  }

  Fd makeParent(const Fd& parent, const std::string& name, const std::string& path) {
    if (mkdirat(parent.get(), name.c_str(), 0755) < 0) throw sysError("unpack " + path);
    Fd made = openFileAt(parent.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!target_.below) return made;
    const Fd model = openInRoot(target_.below->get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (model) copyAttributes(model.get(), made.get());
    return made;
  }

  void rootAttributes(const TarEntry& entry) {
    const Fd root = openInRoot(target_.root.get(), target_.directory, O_RDONLY | O_DIRECTORY);
    if (!root || fchdir(root.get()) < 0) throw sysError("unpack /");
    if (fchown(root.get(), entry.uid, entry.gid) < 0 || fchmod(root.get(), entry.mode) < 0) {
      throw sysError("unpack /");
    }
    for (const auto& [name, value] : entry.xattrs) setXattrOf(".", name, value);
  }

  void whiteout(const Place& place) {
    if (place.name == kOpaqueName) {
      setXattrOf(".", "trusted.overlay.opaque", "y");
      return;
    }
    if (place.name.starts_with(kWhiteoutMetaPrefix)) return;  // AUFS's own
    const std::string hidden = place.name.substr(kWhiteoutPrefix.size());
    if (hidden.empty() || hidden == "." || hidden == "..") {
      throw Error(ErrorKind::kCorrupt, "unpack " + place.path + ": bad whiteout");
    }
    removeTree(place.parent.get(), hidden);
    if (mknodat(place.parent.get(), hidden.c_str(), S_IFCHR, makedev(0, 0)) < 0) {
      throw sysError("unpack " + place.path);
    }
  }

  // A directory stays when there is one already, whatever else there is gives way.
  void directory(const Place& place, const TarEntry& entry) {
    struct stat info;
    const bool there =
        fstatat(place.parent.get(), place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && !S_ISDIR(info.st_mode)) replace(place);
    if ((!there || !S_ISDIR(info.st_mode)) &&
        mkdirat(place.parent.get(), place.name.c_str(), 0700) < 0) {
      throw sysError("unpack " + place.path);
    }
    attributes(place, entry);
    if (directory_times_.size() == kMaxDirectories) {
      throw Error(ErrorKind::kTooLarge, "unpack " + place.path + ": too many directories");
    }
    directory_times_.emplace_back(place.path, timesOf(entry));
  }

  void replace(const Place& place) { removeTree(place.parent.get(), place.name); }

  void create(const Place& place, const TarEntry& entry, TarReader& reader) {
    const int at = place.parent.get();
    const char* name = place.name.c_str();
    int result = 0;
    switch (entry.type) {
      case TarType::kFile:
        return file(place, reader);
      case TarType::kHardLink:
        return hardLink(place, entry);
      case TarType::kSymlink:
        result = symlinkat(entry.link.c_str(), at, name);
        break;
      case TarType::kCharacter:
      case TarType::kBlock:
        result = mknodat(at, name, entry.type == TarType::kBlock ? S_IFBLK : S_IFCHR,
                         makedev(entry.device_major, entry.device_minor));
        break;
      case TarType::kFifo:
        result = mkfifoat(at, name, 0600);
        break;
      case TarType::kDirectory:
        break;  // not here
    }
    if (result < 0) throw sysError("unpack " + place.path);
  }

  void file(const Place& place, TarReader& reader) {
    const Fd out =
        openFileAt(place.parent.get(), place.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    std::vector<std::byte> buffer(kCopyBytes);
    while (const size_t got = reader.content(buffer)) {
      inContext("unpack " + place.path,
                [&] { writeFull(out.get(), std::span(buffer).first(got)); });
    }
  }

  void hardLink(const Place& place, const TarEntry& entry) {
    auto components = componentsOf(entry.link);
    if (components.empty()) {
      throw Error(ErrorKind::kCorrupt, "unpack " + place.path + ": links to nothing");
    }
    const std::string name = components.back();
    components.pop_back();
    std::string path = target_.directory;
    for (const std::string& component : components) path += '/' + component;
    const Fd from = openInRoot(target_.root.get(), path, O_RDONLY | O_DIRECTORY);
    if (!from || linkat(from.get(), name.c_str(), place.parent.get(), place.name.c_str(), 0) < 0) {
      throw sysError("unpack " + place.path + ": link to " + entry.link);
    }
  }

  static Times timesOf(const TarEntry& entry) {
    const timespec time{entry.mtime_s, static_cast<long>(entry.mtime_ns)};
    return {time, time};
  }

  // Owner before mode, because chown clears the set-id bits and capabilities.
  void attributes(const Place& place, const TarEntry& entry) {
    const int at = place.parent.get();
    const char* name = place.name.c_str();
    if (fchownat(at, name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        (entry.type != TarType::kSymlink && fchmodat(at, name, entry.mode, 0) < 0)) {
      throw sysError("unpack " + place.path);
    }
    for (const auto& [key, value] : entry.xattrs) {
      if (!key.starts_with(kOverlayXattrPrefix)) setXattrOf(place.name, key, value);
    }
    utimensat(at, name, timesOf(entry).data(), AT_SYMLINK_NOFOLLOW);
  }

  const UnpackTarget& target_;
  std::vector<std::pair<std::string, Times>> directory_times_;
};

}  // namespace

void unpack(Source& tar, const UnpackTarget& target) {
  Unpacker(target).run(tar);
}

}  // namespace hull::guest
