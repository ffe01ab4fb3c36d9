#include "guest-init/container/mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "base/error.h"
#include "guest-init/container/volumes.h"
#include "guest-init/system/files.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

// ENOENT from a mount must not become "no such program" on the way to the client.
[[noreturn]] void fail(const std::string& what) {
  const int cause = errno;
  throw Error(ErrorKind::kInternal, sysError(what, cause).what());
}

void mountOne(const std::string& source, const std::string& target, const char* type,
              unsigned long flags, const std::string& data = {}) {
  if (mount(source.c_str(), target.c_str(), type, flags, data.c_str()) < 0) {
    fail("mount " + (type ? std::string(type) : source) + " at " + target);
  }
}

void bind(const std::string& source, const std::string& target, unsigned long extra_flags = 0) {
  mountOne(source, target, nullptr, MS_BIND | extra_flags);
}

// The flags a mount has must be repeated when it is made read-only.
void makeReadOnly(const std::string& target) {
  struct statvfs info;
  unsigned long keep = 0;
  if (statvfs(target.c_str(), &info) == 0) {
    const auto has = [&info](unsigned long flag) { return (info.f_flag & flag) != 0; };
    if (has(ST_NOSUID)) keep |= MS_NOSUID;
    if (has(ST_NODEV)) keep |= MS_NODEV;
    if (has(ST_NOEXEC)) keep |= MS_NOEXEC;
    if (has(ST_NOATIME)) keep |= MS_NOATIME;
    if (has(ST_RELATIME)) keep |= MS_RELATIME;
  }
  mountOne("none", target, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | keep);
}

struct MountFlag {
  std::string_view name;
  unsigned long set;
  unsigned long clear;
};
constexpr std::array<MountFlag, 13> kMountFlags = {{
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"noatime", MS_NOATIME, 0},
    {"nodiratime", MS_NODIRATIME, 0},
    {"relatime", MS_RELATIME, 0},
    {"strictatime", MS_STRICTATIME, 0},
    {"sync", MS_SYNCHRONOUS, 0},
}};

struct MountOptions {
  unsigned long flags = 0;
  std::string data;
};

MountOptions parseOptions(std::string_view text, unsigned long defaults) {
  MountOptions options{defaults, {}};
  for (const std::string_view word : split(text, ',')) {
    const auto flag = std::find_if(kMountFlags.begin(), kMountFlags.end(),
                                   [word](const MountFlag& f) { return f.name == word; });
    if (flag != kMountFlags.end()) {
      options.flags = (options.flags | flag->set) & ~flag->clear;
    } else if (!word.empty()) {
      if (!options.data.empty()) options.data += ',';
      options.data += word;
    }
  }
  return options;
}

// A mount point of the right kind; symlinks lead where they lead inside the container.
void makePlace(const std::string& at, bool directory) {
  struct stat info;
  if (stat(at.c_str(), &info) == 0) return;  // of whatever kind: the caller looks
  if (directory) return makeDirectoryPath(at);
  const size_t slash = at.rfind('/');
  if (slash > 0) makeDirectoryPath(at.substr(0, slash));
  writeSmallFile(at, "", 0644);
}

// The descriptor's mount, cloned: needs no name that both sides of the pivot understand.
void bindVolume(const Fd& source, const std::string& at) {
  struct stat from, to;
  if (fstat(source.get(), &from) < 0) fail("look at what is mounted at " + at);
  makePlace(at, S_ISDIR(from.st_mode));
  if (stat(at.c_str(), &to) == 0 && S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode)) {
    throw Error(ErrorKind::kInvalidArgument,
                "mount at " + at +
                    ": not a directory: Are you trying to mount a directory onto a file (or "
                    "vice-versa)? Check if the specified host path exists and is the expected "
                    "type");
  }
  const Fd tree(static_cast<int>(syscall(SYS_open_tree, source.get(), "",
                                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)));
  if (!tree) fail("take what is mounted at " + at);
  if (syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, at.c_str(),
              MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) < 0) {
    fail("mount at " + at);
  }
}

// Sources are named relative to the old root, which is the working directory until leaveOldRoot;
// targets are absolute and therefore inside the new one.
void mountExtra(const std::string& state, const std::vector<Mount>& all, const Mount& mount) {
  const std::string& at = mount.destination;
  if (!at.starts_with('/')) {
    throw Error(ErrorKind::kInvalidArgument, "mount at " + at + ": path is not absolute");
  }
  if (mount.kind == Mount::Kind::kTmpfs) {
    makeDirectoryPath(at);
    const auto options = parseOptions(mount.options, MS_NOSUID | MS_NODEV);
    return mountOne("tmpfs", at, "tmpfs", options.flags, options.data);
  }
  bindVolume(openVolume(state.substr(1), all, mount), at);
  if ((parseOptions(mount.options, 0).flags & MS_RDONLY) != 0) makeReadOnly(at);
}

// Shallow before deep, so that /data/x lands on top of /data.
void mountExtras(const std::string& state, const std::vector<Mount>& mounts) {
  const auto depth = [](const Mount& m) {
    return std::count(m.destination.begin(), m.destination.end(), '/');
  };
  std::vector<Mount> sorted = mounts;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Mount& a, const Mount& b) { return depth(a) < depth(b); });
  for (const Mount& mount : sorted) mountExtra(state, mounts, mount);
}

// A file in a tmpfs of this mount namespace: it is on no disk and ends with the process.
void bindSecret(const std::string& outside, const StepMount& mount, size_t number) {
  const std::string folder = outside + "/secrets";
  if (number == 0) mountOne("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700");
  const std::string file = folder + "/" + std::to_string(number);
  writeSmallFile(file, mount.source, 0600);
  if (chown(file.c_str(), mount.uid, mount.gid) < 0) fail("set owner of " + mount.destination);
  if (chmod(file.c_str(), mount.mode) < 0) fail("set mode of " + mount.destination);
  bind(file, mount.destination);
}

// The socket itself: who may connect is what its own owner and mode say.
void bindSocket(const std::string& outside, const StepMount& mount) {
  const std::string socket = outside + "/sockets/" + mount.source;
  if (chown(socket.c_str(), mount.uid, mount.gid) < 0) fail("set owner of " + mount.destination);
  if (chmod(socket.c_str(), mount.mode) < 0) fail("set mode of " + mount.destination);
  bind(socket, mount.destination);
}

// The disk's own root stays out of sight; lost+found with it.
void bindDisk(const std::string& outside, const StepMount& mount, size_t number) {
  const std::string at = outside + "/step-disks/" + std::to_string(number);
  makeDirectory(at);
  mountOne(mount.source.substr(mount.source.find_first_not_of('/')), at, "ext4",
           MS_NOATIME | MS_NOSUID | MS_NODEV);
  const std::string data = at + "/" + kDiskData;
  if (!exists(data)) {
    makeDirectory(data, 0700);
    if (chown(data.c_str(), mount.uid, mount.gid) < 0) fail("set owner of " + mount.destination);
    if (chmod(data.c_str(), mount.mode) < 0) fail("set mode of " + mount.destination);
  }
  bind(data, mount.destination);
}

void makeMountPoint(const StepMount& mount) {
  if (!mount.file) return makeDirectoryPath(mount.destination);
  if (exists(mount.destination)) return;
  const size_t slash = mount.destination.rfind('/');
  if (slash > 0) makeDirectoryPath(mount.destination.substr(0, slash));
  writeSmallFile(mount.destination, "", 0644);
}

// After the container's own mounts, in their own order: a later one may be inside an earlier one.
void mountSteps(const std::string& state, const std::vector<StepMount>& mounts) {
  const std::string outside = state.substr(1);  // relative to the old root
  size_t files = 0, disks = 0;
  for (const StepMount& mount : mounts) {
    if (!mount.destination.starts_with('/')) {
      throw Error(ErrorKind::kInvalidArgument,
                  "mount at " + mount.destination + ": path is not absolute");
    }
    makeMountPoint(mount);
    switch (mount.kind) {
      case StepMount::Kind::kTmpfs:
        mountOne("tmpfs", mount.destination, "tmpfs", MS_NOSUID | MS_NODEV, mount.options);
        break;
      case StepMount::Kind::kTree:
        bind(outside + "/rw/trees/" + mount.source, mount.destination);
        break;
      case StepMount::Kind::kDisk:
        bindDisk(outside, mount, disks++);
        break;
      case StepMount::Kind::kFile:
        bindSecret(outside, mount, files++);
        break;
      case StepMount::Kind::kSocket:
        bindSocket(outside, mount);
        break;
    }
    if (mount.read_only) makeReadOnly(mount.destination);
  }
}

void pivot(const std::string& state) {
  // Nothing mounted from here on may appear outside.
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) fail("make mounts private");
  if (chdir("/") < 0) fail("enter /");
  const Fd old_root = openFile("/", O_PATH | O_DIRECTORY);
  const std::string root = state + "/merged";
  // The old root ends up stacked on the new one (pivot_root(2)); with it as the working directory,
  // relative names are outside and absolute ones inside.
  if (chdir(root.c_str()) < 0) fail("enter " + root);
  if (syscall(SYS_pivot_root, ".", ".") < 0) fail("pivot into " + root);
  if (fchdir(old_root.get()) < 0) fail("enter the old root");
}

void leaveOldRoot() {
  if (umount2(".", MNT_DETACH) < 0) fail("leave the old root");
  if (chdir("/") < 0) fail("enter /");
}

// Of the guest's kernel, under the name they have there. Seen from the old root.
void addDevice(const std::string& path) {
  struct stat info;
  if (stat(path.substr(1).c_str(), &info) < 0 ||
      (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode))) {
    throw Error(ErrorKind::kInvalidArgument,
                "error gathering device information while adding custom device \"" + path +
                    "\": the guest's kernel has no such device");
  }
  makeDirectoryPath(path.substr(0, path.rfind('/')));
  if (mknod(path.c_str(), (info.st_mode & S_IFMT) | 0666, info.st_rdev) < 0 && errno != EEXIST) {
    fail("create " + path);
  }
  chmod(path.c_str(), 0666);
}

// Every device node the guest has, as `--privileged` gives the host's in Docker.
void addAllDevices(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.substr(1).c_str()), closedir);
  if (!listing) return;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    const std::string path = folder + '/' + name;
    if (name == "." || name == ".." || name == "pts" || name == "shm") continue;
    if (entry->d_type == DT_DIR) addAllDevices(path);
    if (entry->d_type == DT_CHR || entry->d_type == DT_BLK) addDevice(path);
  }
}

void makeDevices() {
  struct Device {
    const char* path;
    unsigned major_number;
    unsigned minor_number;
  };
  constexpr std::array<Device, 6> kDevices = {{{"/dev/null", 1, 3},
                                               {"/dev/zero", 1, 5},
                                               {"/dev/full", 1, 7},
                                               {"/dev/random", 1, 8},
                                               {"/dev/urandom", 1, 9},
                                               {"/dev/tty", 5, 0}}};
  for (const Device& device : kDevices) {
    if (mknod(device.path, S_IFCHR | 0666, makedev(device.major_number, device.minor_number)) < 0) {
      fail(std::string("create ") + device.path);
    }
    // The mode of mknod is cut by the umask.
    if (chmod(device.path, 0666) < 0) fail(std::string("set mode of ") + device.path);
  }
  constexpr std::array<std::pair<const char*, const char*>, 6> kLinks = {
      {{"/proc/self/fd", "/dev/fd"},
       {"/proc/self/fd/0", "/dev/stdin"},
       {"/proc/self/fd/1", "/dev/stdout"},
       {"/proc/self/fd/2", "/dev/stderr"},
       {"pts/ptmx", "/dev/ptmx"},
       {"/proc/kcore", "/dev/core"}}};
  for (const auto& [target, path] : kLinks) {
    if (symlink(target, path) < 0) fail(std::string("create ") + path);
  }
}

void mountKernelFileSystems(const CreateContainer& options) {
  constexpr unsigned long kPlain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
  mountOne("proc", "/proc", "proc", kPlain);
  mountOne("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
  for (const char* path : {"/dev/pts", "/dev/shm", "/dev/mqueue"}) makeDirectory(path);
  mountOne("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
           "newinstance,ptmxmode=0666,mode=0620,gid=5");
  mountOne("shm", "/dev/shm", "tmpfs", kPlain,
           "mode=1777,size=" + std::to_string(options.shm_bytes));
  mountOne("mqueue", "/dev/mqueue", "mqueue", kPlain);
  makeDevices();
  if (options.privileged) addAllDevices("/dev");
  for (const std::string& path : options.devices) addDevice(path);
  const unsigned long read_only = options.privileged ? 0 : MS_RDONLY;
  mountOne("sysfs", "/sys", "sysfs", kPlain | read_only);
  mountOne("cgroup", "/sys/fs/cgroup", "cgroup2", kPlain | read_only);
}

// Docker allows what has a namespace of its own; here that is the whole kernel.
void setSysctls(const std::vector<std::string>& sysctls) {
  for (const std::string& setting : sysctls) {
    const size_t equals = setting.find('=');
    std::string path = setting.substr(0, equals);
    if (equals == std::string::npos || path.find('/') != std::string::npos) {
      throw Error(ErrorKind::kInvalidArgument, "sysctl " + setting + ": expected name=value");
    }
    std::replace(path.begin(), path.end(), '.', '/');
    if (!writeControl("/proc/sys/" + path, setting.substr(equals + 1))) {
      const int cause = errno;
      throw Error(ErrorKind::kInvalidArgument, sysError("set sysctl " + setting, cause).what());
    }
  }
}

// Bound from a tmpfs, as Docker does: they stay out of layers and work on a read-only root.
void bindFiles(const std::string& state) {
  const std::string files = state.substr(1) + "/files/";  // relative to the old root
  for (const char* name : {"resolv.conf", "hosts", "hostname"}) {
    const std::string target = std::string("/etc/") + name;
    if (access((files + name).c_str(), F_OK) == 0) bind(files + name, target);
  }
}

void maskPath(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) < 0) return;  // not on this kernel
  if (S_ISDIR(info.st_mode)) {
    mountOne("tmpfs", path, "tmpfs", MS_RDONLY);
  } else {
    bind("/dev/null", path);
  }
}

void restrictPaths(const CreateContainer& options) {
  for (const std::string& path : options.read_only_paths) {
    if (!exists(path)) continue;
    bind(path, path, MS_REC);
    makeReadOnly(path);
  }
  for (const std::string& path : options.masked_paths) maskPath(path);
  if (options.read_only_root) makeReadOnly("/");
}

}  // namespace

void enterNewContainer(const std::string& state, const CreateContainer& options,
                       const std::vector<StepMount>& step_mounts) {
  if (unshare(CLONE_NEWCGROUP) < 0) fail("create cgroup namespace");
  const std::string& name = options.hostname;
  if (!name.empty() && sethostname(name.data(), name.size()) < 0) fail("set host name " + name);
  pivot(state);
  mountKernelFileSystems(options);
  bindFiles(state);
  mountExtras(state, options.mounts);
  mountSteps(state, step_mounts);
  setSysctls(options.sysctls);
  restrictPaths(options);
  leaveOldRoot();
}

void enterStoppedContainer(const std::string& state, const CreateContainer& options) {
  if (unshare(CLONE_NEWNS) < 0) fail("create mount namespace");
  pivot(state);
  mountExtras(state, options.mounts);
  leaveOldRoot();
}

}  // namespace hull::guest
