#include "guest-init/container/rootfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <memory>

#include "base/error.h"
#include "base/open_in_root.h"
#include "guest-init/container/volumes.h"
#include "guest-init/system/files.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

constexpr size_t kMaxPlainNameBytes = 64;

void mountAt(const char* source, const std::string& target, const char* type, unsigned long flags,
             const std::string& data) {
  if (mount(source, target.c_str(), type, flags, data.c_str()) < 0) {
    const int cause = errno;
    throw Error(ErrorKind::kInternal,
                sysError("mount " + std::string(source) + " at " + target, cause).what());
  }
}

std::string nameOf(const Fd& directory) {
  std::array<char, PATH_MAX> name;
  const std::string link = "/proc/self/fd/" + std::to_string(directory.get());
  const ssize_t size = readlink(link.c_str(), name.data(), name.size());
  return {name.data(), size < 0 ? 0 : static_cast<size_t>(size)};
}

// Builds the same directories in `to` as the container has on the way to `path`, so that the init
// layer's do not change the image's owners and modes. `base_root` sees the image.
class InitLayer {
 public:
  InitLayer(const std::string& base, const std::string& init)
      : base_(openFile(base, O_RDONLY | O_DIRECTORY)),
        init_(openFile(init, O_RDONLY | O_DIRECTORY)) {
    copyAttributes(base_.get(), init_.get());
  }

  // Of whatever kind: a mount that does not fit it is refused later.
  bool isThere(const std::string& path) const {
    return static_cast<bool>(openInRoot(base_.get(), path, O_PATH));
  }

  // The same place by a name without links, as far as it is there: /var/run/x is /run/x.
  std::string direct(const std::string& path) const {
    const std::string root = nameOf(base_);
    for (size_t end = path.rfind('/'); end != std::string::npos && end > 0;
         end = path.rfind('/', end - 1)) {
      const Fd there = openInRoot(base_.get(), path.substr(0, end), O_PATH | O_DIRECTORY);
      if (!there) continue;
      const std::string name = nameOf(there);
      return name.starts_with(root) ? name.substr(root.size()) + path.substr(end) : path;
    }
    return path;
  }

  void addDirectory(const std::string& path) {
    const Fd there = openInRoot(base_.get(), path, O_PATH);
    struct stat info;
    if (there && fstat(there.get(), &info) == 0 && S_ISDIR(info.st_mode)) return;
    makeParents(path + "/x");
  }

  void addFile(const std::string& path) {
    const Fd there = openInRoot(base_.get(), path, O_PATH);
    struct stat info;
    if (there && fstat(there.get(), &info) == 0 && S_ISREG(info.st_mode)) return;
    const Fd parent = makeParents(path);
    if (!parent) return;
    const std::string name = path.substr(path.rfind('/') + 1);
    const Fd made(openat(parent.get(), name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    if (!made && errno != EEXIST) throw sysError("create " + path);
  }

  void addSymlink(const std::string& path, const char* target) {
    const Fd there = openInRoot(base_.get(), path, O_PATH | O_NOFOLLOW);
    if (there) return;
    const Fd parent = makeParents(path);
    const std::string name = path.substr(path.rfind('/') + 1);
    if (parent && symlinkat(target, parent.get(), name.c_str()) < 0 && errno != EEXIST) {
      throw sysError("create " + path);
    }
  }

 private:
  // Nothing when an image's symlink leads elsewhere: then the mount goes where the link leads.
  Fd makeParents(const std::string& path) {
    Fd at = init_.duplicate();
    std::string prefix;
    const auto pieces = split(path, '/');
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      if (pieces[i].empty() || pieces[i] == ".") continue;
      if (pieces[i] == "..") return {};
      prefix += '/';
      prefix += pieces[i];
      const Fd there = openInRoot(base_.get(), prefix, O_PATH | O_NOFOLLOW);
      struct stat info {};
      if (there && fstat(there.get(), &info) == 0 && S_ISLNK(info.st_mode)) return {};
      const std::string name(pieces[i]);
      const bool made = mkdirat(at.get(), name.c_str(), 0755) == 0;
      Fd next = openFileAt(at.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (made && there && S_ISDIR(info.st_mode)) copyAttributes(there.get(), next.get());
      at = std::move(next);
    }
    return at;
  }

  Fd base_;
  Fd init_;
};

// `name` in `folder`: plain, and not there yet.
std::string newPlace(const std::string& operation, const std::string& folder,
                     const std::string& name) {
  checkPlainName(operation, name);
  const std::string path = folder + name;
  if (exists(path)) {
    throw Error(ErrorKind::kConflict, operation + " " + name + ": exists already");
  }
  return path;
}

}  // namespace

void checkPlainName(const std::string& operation, const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (name.empty() || name.size() > kMaxPlainNameBytes || !plain) {
    throw Error(ErrorKind::kInvalidArgument, operation + ": bad name");
  }
}

RootFilesystem::RootFilesystem(std::string state, const CreateContainer& options,
                               const std::string& host)
    : state_(std::move(state)) {
  makeDirectoryPath(state_);
  try {
    makeFolders(host);
    mountDisks(options);
    if (host.empty()) writeOwnNames(options);
    mountVolumes(state_, options.mounts);
    findMountPoints(options.mounts);
    findSealedLayers();
    mountOverlay();
    initialiseVolumes(state_, merged(), options.mounts);
  } catch (...) {
    unmountAll();
    throw;
  }
}

RootFilesystem::~RootFilesystem() {
  unmountAll();
}

// What is no directory is mounted over a file.
void RootFilesystem::findMountPoints(const std::vector<Mount>& mounts) {
  for (const Mount& mount : mounts) {
    struct stat info {};
    info.st_mode = S_IFDIR;
    if (mount.kind == Mount::Kind::kSocket) info.st_mode = S_IFSOCK;
    if (isVolume(mount)) fstat(openVolume(state_, mounts, mount).get(), &info);
    (S_ISDIR(info.st_mode) ? mount_points_ : mount_files_).push_back(mount.destination);
  }
}

void RootFilesystem::unmountAll() {
  for (const char* name : {"/merged", "/base", "/rw", "/lower"}) {
    const std::string path = state_ + name;
    // Not in use any more in the ordinary case; what a straggler still holds goes when it does.
    if (umount2(path.c_str(), 0) < 0 && errno == EBUSY) umount2(path.c_str(), MNT_DETACH);
  }
  // These are not the container's to remove.
  if (!unmountVolumes(state_)) return;
  try {
    removeTree(AT_FDCWD, state_);
  } catch (const Error&) {
    // A mount that would not go away: the tree stays until the VM ends.
  }
}

// The link is relative: who mounts what it leads to has a root of its own by then.
void RootFilesystem::makeFolders(const std::string& host) {
  const std::string files = "../" + host + "/files";
  if (!host.empty() && symlink(files.c_str(), (state_ + "/files").c_str()) < 0) {
    throw sysError("share the name files of " + host);
  }
  for (const char* name : {"/lower", "/rw", "/base", "/merged", "/init", "/files", "/secrets",
                           "/step-disks", "/sockets"}) {
    makeDirectory(state_ + name);
  }
}

void RootFilesystem::writeOwnNames(const CreateContainer& options) {
  writeNameFiles(options.hosts, options.resolv_conf);
  if (!options.hostname.empty()) {
    writeSmallFile(state_ + "/files/hostname", options.hostname + '\n');
  }
}

void RootFilesystem::mountDisks(const CreateContainer& options) {
  mountAt(options.root_disk.c_str(), state_ + "/lower", "ext4", MS_RDONLY | MS_NOATIME, "");
  if (options.writable_disk.empty()) {
    mountAt("tmpfs", state_ + "/rw", "tmpfs", MS_NOATIME, "mode=0755");
  } else {
    // discard: what the container deletes becomes a hole in the host's file again.
    mountAt(options.writable_disk.c_str(), state_ + "/rw", "ext4", MS_NOATIME, "discard");
  }
  makeDirectory(state_ + "/rw/sealed");
  makeDirectory(state_ + "/rw/work");
  removeTree(AT_FDCWD, state_ + "/rw/trees");  // of an earlier VM
  makeDirectory(state_ + "/rw/trees", 0700);
}

// Over what is there: the container has the very files mounted.
void RootFilesystem::writeNameFiles(const std::string& hosts, const std::string& resolv_conf) {
  if (!resolv_conf.empty()) writeSmallFile(state_ + "/files/resolv.conf", resolv_conf);
  if (!hosts.empty()) writeSmallFile(state_ + "/files/hosts", hosts);
}

// A writable disk may come back with what an earlier VM sealed on it. A layer being written when
// the VM ended has a name that is not a number.
void RootFilesystem::findSealedLayers() {
  const std::string sealed = state_ + "/rw/sealed";
  while (layers_ < kMaxSealedLayers && exists(sealed + '/' + std::to_string(layers_ + 1))) {
    ++layers_;
  }
  discardLayer();
}

std::string RootFilesystem::sealedLayer(uint64_t number) const {
  if (number == 0 || number > layers_) {
    throw Error(ErrorKind::kNotFound, "layer " + std::to_string(number) + ": not sealed");
  }
  return state_ + "/rw/sealed/" + std::to_string(number);
}

// Relative to state_, because a page is all the kernel takes.
std::string RootFilesystem::lowerOption(bool with_init) const {
  std::string option = "lowerdir=";
  if (with_init) option += "init:";
  for (uint64_t n = layers_; n > 0; --n) option += "rw/sealed/" + std::to_string(n) + ':';
  return option + "lower";
}

void RootFilesystem::makeInitLayer(const std::string& base) {
  removeTree(AT_FDCWD, state_ + "/init");
  makeDirectory(state_ + "/init");
  InitLayer layer(base, state_ + "/init");
  for (const char* path : {"/dev", "/proc", "/sys"}) layer.addDirectory(path);
  for (const char* path : {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}) layer.addFile(path);
  layer.addSymlink("/etc/mtab", "/proc/mounts");
  for (const std::string& path : mount_points_) {
    if (!layer.isThere(path)) layer.addDirectory(layer.direct(path));
  }
  for (const std::string& path : mount_files_) {
    if (!layer.isThere(path)) layer.addFile(layer.direct(path));
  }
  for (const std::string& path : step_directories_) layer.addDirectory(path);
  for (const std::string& path : step_files_) layer.addFile(path);
}

void RootFilesystem::mountOverlay() {
  if (chdir(state_.c_str()) < 0) throw sysError("enter " + state_);
  const std::string base = state_ + (layers_ == 0 ? "/lower" : "/base");
  if (layers_ != 0) {
    mountAt("overlay", base, "overlay", MS_RDONLY,
            lowerOption(false) + ",index=off,metacopy=off,redirect_dir=off");
  }
  makeInitLayer(base);
  if (!exists(upper())) {
    // The top directory decides the attributes of "/" in the merged tree.
    makeDirectory(upper());
    const Fd from = openFile(base, O_RDONLY | O_DIRECTORY);
    const Fd to = openFile(upper(), O_RDONLY | O_DIRECTORY);
    copyAttributes(from.get(), to.get());
  }
  if (layers_ != 0) umount2(base.c_str(), MNT_DETACH);
  mountAt("overlay", merged(), "overlay", 0,
          lowerOption(true) +
              ",upperdir=rw/upper,workdir=rw/work,index=off,metacopy=off,redirect_dir=off");
  if (chdir("/") < 0) throw sysError("enter /");
}

void RootFilesystem::useMountPoints(std::vector<std::string> directories,
                                    std::vector<std::string> files) {
  if (directories == step_directories_ && files == step_files_) return;
  unmountOverlay();
  step_directories_ = std::move(directories);
  step_files_ = std::move(files);
  mountOverlay();
}

std::string RootFilesystem::prepareTree(const std::string& name) {
  const std::string path = newPlace("write tree", state_ + "/rw/trees/", name);
  makeDirectory(path);
  return path;
}

void RootFilesystem::unmountOverlay() {
  if (umount2(merged().c_str(), 0) < 0) throw sysError("unmount the container's root");
}

bool RootFilesystem::upperIsEmpty() const {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(upper().c_str()), closedir);
  if (!listing) throw sysError("read " + upper());
  while (const dirent* entry = readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return false;
  }
  return true;
}

uint64_t RootFilesystem::seal() {
  if (layers_ == kMaxSealedLayers) throw Error(ErrorKind::kTooLarge, "seal layer: too many layers");
  unmountOverlay();
  const std::string name = state_ + "/rw/sealed/" + std::to_string(layers_ + 1);
  if (rename(upper().c_str(), name.c_str()) < 0) {
    const int cause = errno;
    mountOverlay();
    throw sysError("seal layer", cause);
  }
  ++layers_;
  mountOverlay();
  return layers_;
}

std::string RootFilesystem::prepareLayer() {
  if (layers_ == kMaxSealedLayers) {
    throw Error(ErrorKind::kTooLarge, "write layer: too many layers");
  }
  if (!upperIsEmpty()) seal();
  discardLayer();
  const std::string path = state_ + "/rw/sealed/new";
  makeDirectory(path);
  const Fd from = openFile(merged(), O_RDONLY | O_DIRECTORY);
  const Fd to = openFile(path, O_RDONLY | O_DIRECTORY);
  copyAttributes(from.get(), to.get());
  return path;
}

uint64_t RootFilesystem::adoptLayer() {
  unmountOverlay();
  const std::string name = state_ + "/rw/sealed/" + std::to_string(layers_ + 1);
  if (rename((state_ + "/rw/sealed/new").c_str(), name.c_str()) < 0) {
    const int cause = errno;
    mountOverlay();
    throw sysError("seal layer", cause);
  }
  ++layers_;
  // The empty upper directory has the old root's attributes: the new layer's count.
  removeTree(AT_FDCWD, upper());
  mountOverlay();
  return layers_;
}

void RootFilesystem::discardLayer() {
  removeTree(AT_FDCWD, state_ + "/rw/sealed/new");
}

}  // namespace hull::guest
