#include "guest-init/server/tree_transfers.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "guest-init/archive/pack.h"
#include "guest-init/archive/unpack.h"
#include "guest-init/container/mounts.h"
#include "guest-init/system/files.h"
#include "guest-init/system/log.h"

namespace hull::guest {

namespace {

constexpr const char* kPendingSeed = ".seed";

Transfer::ReadWork packTree(std::string path, PackKind kind) {
  return [path = std::move(path), kind](Sink& chunks, const Transfer::Ready& ready) {
    const Fd directory = openFile(path, O_RDONLY | O_DIRECTORY);
    ready();
    TarWriter tar(chunks);
    packContents(directory, "", kind, tar);
    tar.finish();
  };
}

// The parts of a path as docker cp sees them: "/a/b" is b in /a; "/a/b/." is the contents of b
// under the name "."; a trailing slash follows a symlink.
struct ArchivePath {
  std::string parent;
  std::string name;
  std::string as;
};

ArchivePath splitArchivePath(std::string path) {
  if (!path.starts_with('/')) path.insert(0, "/");
  const bool contents = path.ends_with("/.") || path == "/";
  const bool follow = contents || path.ends_with('/');
  while (path.size() > 1 && (path.ends_with('/') || path.ends_with("/."))) path.pop_back();
  const size_t slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  if (contents || name.empty()) return {path, ".", "."};
  if (follow) return {path, ".", name};
  return {slash == 0 ? "/" : path.substr(0, slash), name, name};
}

// Runs inside the container's root, so names resolve as the container would see them.
Transfer::ReadWork packPath(std::string state, CreateContainer options, std::string path) {
  return [state = std::move(state), options = std::move(options), path = std::move(path)](
             Sink& chunks, const Transfer::Ready& ready) {
    enterStoppedContainer(state, options);
    const ArchivePath parts = splitArchivePath(path);
    const Fd parent(open(parts.parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat info;
    if (!parent || fstatat(parent.get(), parts.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
      throw sysError("stat " + path);
    }
    ready();
    TarWriter tar(chunks);
    packObject(parent, parts.name, parts.as, tar);
    tar.finish();
  };
}

Transfer::WriteWork unpackPath(std::string state, CreateContainer options, std::string path) {
  return [state = std::move(state), options = std::move(options), path = std::move(path)](
             Source& chunks, const Transfer::Ready& ready) {
    enterStoppedContainer(state, options);
    const std::string at = path.starts_with('/') ? path : '/' + path;
    const Fd directory(open(at.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) throw sysError("open " + at);
    const Fd root = openFile("/", O_RDONLY | O_DIRECTORY);
    ready();
    unpack(chunks, {root, at, nullptr});
  };
}

Transfer::WriteWork unpackLayer(std::string layer, std::string merged) {
  return [layer = std::move(layer), merged = std::move(merged)](Source& chunks,
                                                                const Transfer::Ready& ready) {
    const Fd root = openFile(layer, O_RDONLY | O_DIRECTORY);
    const Fd below = openFile(merged, O_RDONLY | O_DIRECTORY);
    ready();
    unpack(chunks, {root, "", &below});
  };
}

Transfer::WriteWork unpackTree(std::string path) {
  return [path = std::move(path)](Source& chunks, const Transfer::Ready& ready) {
    const Fd root = openFile(path, O_RDONLY | O_DIRECTORY);
    ready();
    unpack(chunks, {root, "", nullptr});
  };
}

// In a mount namespace of its own, so that the mount ends with the process.
Transfer::WriteWork seedDisk(std::string at, std::string device) {
  return [at = std::move(at), device = std::move(device)](Source& chunks,
                                                          const Transfer::Ready& ready) {
    if (!device.starts_with("/dev/")) {
      throw Error(ErrorKind::kInvalidArgument, "fill the disk " + device + ": no disk");
    }
    makeDirectory(at, 0700);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0 ||
        mount(device.c_str(), at.c_str(), "ext4", MS_NOATIME | MS_NOSUID | MS_NODEV, nullptr) < 0) {
      throw sysError("mount " + device);
    }
    const Fd disk = openFile(at, O_RDONLY | O_DIRECTORY);
    removeTree(disk.get(), kPendingSeed);  // of a machine that ended in the middle
    ready();
    if (exists(at + "/" + kDiskData)) {
      std::array<std::byte, 16384> nowhere;
      while (chunks.read(nowhere) > 0) {
      }
      return;
    }
    const std::string pending = at + "/" + kPendingSeed;
    makeDirectory(pending, 0700);
    const Fd root = openFile(pending, O_RDONLY | O_DIRECTORY);
    unpack(chunks, {root, "", nullptr});
    if (!isDirectory(pending + "/" + kDiskData))
      throw Error(ErrorKind::kCorrupt, "fill " + device + ": the tar has no directory \"data\"");
    if (syncfs(disk.get()) < 0 || renameat(root.get(), kDiskData, disk.get(), kDiskData) < 0)
      throw sysError("fill " + device);
    removeTree(disk.get(), kPendingSeed);
    if (syncfs(disk.get()) < 0) throw sysError("fill " + device);
  };
}

// In hull-init, when the layer's directory is complete or given up.
std::string concludeLayer(RootFilesystem& root, std::string error) {
  try {
    if (error.empty()) {
      root.adoptLayer();
    } else {
      root.discardLayer();
    }
  } catch (const Error& failure) {
    if (error.empty()) return failure.what();
    note(failure.what());
  }
  return error;
}

}  // namespace

std::unique_ptr<Transfer> makeTreeTransfer(Container& container, const Frame& frame,
                                           const OpenStream& request, Fd socket) {
  RootFilesystem& root = container.root();
  using Kind = OpenStream::Kind;
  switch (request.kind) {
    case Kind::kReadLayer:
      return Transfer::read(frame, std::move(socket),
                            packTree(root.sealedLayer(request.offset), PackKind::kLayer));
    case Kind::kReadChanges:
      return Transfer::read(frame, std::move(socket), packTree(root.upper(), PackKind::kLayer));
    case Kind::kExport:
      return Transfer::read(frame, std::move(socket), packTree(root.merged(), PackKind::kPlain));
    case Kind::kReadArchive:
      return Transfer::read(frame, std::move(socket),
                            packPath(root.state(), container.options(), request.path));
    case Kind::kWriteArchive:
      if (container.options().read_only_root) {
        throw Error(ErrorKind::kForbidden, "container rootfs is marked read-only");
      }
      return Transfer::write(frame, std::move(socket),
                             unpackPath(root.state(), container.options(), request.path),
                             [](std::string error) { return error; });
    case Kind::kWriteLayer:
      return Transfer::write(
          frame, std::move(socket), unpackLayer(root.prepareLayer(), root.merged()),
          [&root](std::string error) { return concludeLayer(root, std::move(error)); });
    case Kind::kWriteTree:
      return Transfer::write(frame, std::move(socket), unpackTree(root.prepareTree(request.path)),
                             [](std::string error) { return error; });
    case Kind::kSeedDisk:
      return Transfer::write(frame, std::move(socket),
                             seedDisk(root.state() + "/seed", request.path),
                             [](std::string error) { return error; });
    case Kind::kStdin:
    case Kind::kStdout:
    case Kind::kStderr:
    case Kind::kConnection:
      break;
  }
  throw Error(ErrorKind::kInvalidArgument, "open stream: not a tree");
}

}  // namespace hull::guest
