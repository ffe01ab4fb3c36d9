#include "guest-init/container/volumes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <memory>

#include "base/error.h"
#include "base/open_in_root.h"
#include "base/stream.h"
#include "guest-init/archive/pack.h"
#include "guest-init/archive/unpack.h"
#include "guest-init/system/files.h"

namespace hull::guest {

namespace {

constexpr size_t kMaxShareNameBytes = 16;
constexpr size_t kMaxErrorBytes = 4096;

// ENOENT from a mount must not become "no such program" on the way to the client.
[[noreturn]] void fail(const std::string& what) {
  const int cause = errno;
  throw Error(ErrorKind::kInternal, sysError(what, cause).what());
}

std::vector<std::string> disksOf(const std::vector<Mount>& mounts) {
  std::vector<std::string> disks;
  for (const Mount& mount : mounts) {
    if (mount.kind != Mount::Kind::kDisk) continue;
    if (std::find(disks.begin(), disks.end(), mount.source) == disks.end()) {
      disks.push_back(mount.source);
    }
  }
  return disks;
}

std::string placeOf(const std::string& state, const std::vector<Mount>& all, const Mount& mount) {
  if (mount.kind == Mount::Kind::kVirtioFs) {
    const bool plain = std::all_of(mount.source.begin(), mount.source.end(),
                                   [](char c) { return c >= '0' && c <= '9'; });
    if (mount.source.empty() || mount.source.size() > kMaxShareNameBytes || !plain) {
      throw Error(ErrorKind::kInvalidArgument, "mount at " + mount.destination + ": bad source");
    }
    return state + "/shares/" + mount.source;
  }
  if (mount.kind == Mount::Kind::kSocket) return state + "/sockets/" + mount.source;
  const auto disks = disksOf(all);
  const auto at = std::find(disks.begin(), disks.end(), mount.source);
  return state + "/volumes/" + std::to_string(at - disks.begin()) + "/" + kDiskFolder;
}

void mountDisk(const std::string& disk, const std::string& at) {
  makeDirectory(at, 0700);
  // discard: what is deleted becomes a hole in the host's file again.
  if (mount(disk.c_str(), at.c_str(), "ext4", MS_NOATIME, "discard") < 0) {
    fail("mount " + disk + " at " + at);
  }
  makeDirectory(at + "/" + kDiskFolder);
}

bool isEmpty(const Fd& directory) {
  Fd again = openFileAt(directory.get(), ".", O_RDONLY | O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(again.get()), closedir);
  if (!listing) throw sysError("read directory");
  again.release();
  while (const dirent* entry = readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return false;
  }
  return true;
}

// In a process of its own: what it calls changes the working directory. The error, or empty.
class Helper {
 public:
  explicit Helper(const std::function<void()>& work) {
    FdPair errors = makePipe();
    pid_ = fork();
    if (pid_ < 0) throw sysError("fork");
    if (pid_ == 0) {
      std::string text;
      try {
        work();
      } catch (const std::exception& error) {
        text = error.what();
        if (text.empty()) text = "failed";
      }
      text.resize(std::min(text.size(), kMaxErrorBytes));
      [[maybe_unused]] const ssize_t sent = ::write(errors.second.get(), text.data(), text.size());
      _exit(text.empty() ? 0 : 1);
    }
    errors_ = std::move(errors.first);
  }
  std::string wait() {
    std::string text(kMaxErrorBytes, '\0');
    text.resize(readSome(errors_.get(), std::as_writable_bytes(std::span(text))));
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    if (text.empty() && status != 0) text = "its process was killed";
    return text;
  }

 private:
  pid_t pid_ = -1;
  Fd errors_;
};

class PipeSink final : public Sink {
 public:
  explicit PipeSink(int fd) : fd_(fd) {}
  void write(std::span<const std::byte> bytes) override { writeFull(fd_, bytes); }

 private:
  int fd_;
};

class PipeSource final : public Source {
 public:
  explicit PipeSource(int fd) : fd_(fd) {}
  size_t read(std::span<std::byte> into) override { return readSome(fd_, into); }

 private:
  int fd_;
};

// Owners, modes, times, links and extended attributes as an archive keeps them.
void copyContents(const Fd& from, const Fd& to) {
  FdPair pipe = makePipe();
  Helper packer([&] {
    pipe.first.reset();
    PipeSink sink(pipe.second.get());
    TarWriter tar(sink);
    packContents(from, "", PackKind::kPlain, tar);
    tar.finish();
  });
  pipe.second.reset();
  Helper unpacker([&] {
    umask(0);
    PipeSource source(pipe.first.get());
    unpack(source, {to, "", nullptr});
  });
  pipe.first.reset();
  const std::string failed = unpacker.wait(), cause = packer.wait();
  if (!failed.empty()) throw Error(ErrorKind::kInternal, failed);
  if (!cause.empty()) throw Error(ErrorKind::kInternal, cause);
}

void initialise(const std::string& state, const std::string& merged,
                const std::vector<Mount>& mounts, const Mount& mount) {
  const Fd root = openFile(merged, O_RDONLY | O_DIRECTORY);
  const Fd from = openInRoot(root.get(), mount.destination, O_RDONLY | O_DIRECTORY);
  if (!from) return;  // nothing is there, or no directory
  const Fd place = openVolume(state, mounts, mount);
  struct stat info;
  if (fstat(place.get(), &info) < 0 || !S_ISDIR(info.st_mode)) return;
  const Fd to = openFileAt(place.get(), ".", O_RDONLY | O_DIRECTORY);
  if (!isEmpty(to)) return;
  if (!isEmpty(from)) copyContents(from, to);
  copyAttributes(from.get(), to.get());
}

}  // namespace

bool isVolume(const Mount& mount) {
  return mount.kind == Mount::Kind::kVirtioFs || mount.kind == Mount::Kind::kDisk;
}

void mountVolumes(const std::string& state, const std::vector<Mount>& mounts) {
  const bool shares = std::any_of(mounts.begin(), mounts.end(), [](const Mount& mount) {
    return mount.kind == Mount::Kind::kVirtioFs;
  });
  if (shares) {
    const std::string at = state + "/shares";
    makeDirectory(at, 0700);
    if (mount(kShareTag, at.c_str(), "virtiofs", 0, "") < 0) fail("mount the host's folders");
  }
  const auto disks = disksOf(mounts);
  if (!disks.empty()) makeDirectory(state + "/volumes", 0700);
  for (size_t n = 0; n < disks.size(); ++n) {
    mountDisk(disks[n], state + "/volumes/" + std::to_string(n));
  }
}

bool unmountVolumes(const std::string& state) {
  // Until nothing is mounted there: what comes after may remove what it finds.
  const auto unmount = [](const std::string& at, int flags) {
    while (umount2(at.c_str(), flags) == 0) {
    }
    return errno == EINVAL || errno == ENOENT;
  };
  bool gone = unmount(state + "/shares", MNT_DETACH);
  for (size_t n = 0;; ++n) {
    const std::string at = state + "/volumes/" + std::to_string(n);
    if (!exists(at)) return gone;
    if (!unmount(at, 0)) gone = unmount(at, MNT_DETACH) && gone;
  }
}

// O_DIRECTORY where there can be one: without it a folder that the host mounted is not entered.
Fd openVolume(const std::string& state, const std::vector<Mount>& all, const Mount& mount) {
  const std::string place = placeOf(state, all, mount);
  Fd at(open(place.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at && errno == ENOTDIR) at.reset(open(place.c_str(), O_PATH | O_CLOEXEC));
  if (!at) fail("open what is mounted at " + mount.destination);
  if (mount.subpath.empty()) return at;
  Fd below = openInRoot(at.get(), mount.subpath, O_PATH | O_DIRECTORY);
  if (!below && errno == ENOTDIR) below = openInRoot(at.get(), mount.subpath, O_PATH);
  if (!below) {
    const int cause = errno;
    throw Error(
        ErrorKind::kInvalidArgument,
        sysError("mount at " + mount.destination + ": subpath " + mount.subpath, cause).what());
  }
  return below;
}

void initialiseVolumes(const std::string& state, const std::string& merged,
                       const std::vector<Mount>& mounts) {
  for (const Mount& mount : mounts) {
    if (!isVolume(mount) || !mount.initialise) continue;
    inContext("copy " + mount.destination + " of the image into the volume",
              [&] { initialise(state, merged, mounts, mount); });
  }
}

}  // namespace hull::guest
