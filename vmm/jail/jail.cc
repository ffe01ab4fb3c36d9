#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

namespace hull::vmm {

namespace {

constexpr rlim_t kMaxDescriptors = 2048;

void require(int result, const char* operation) {
  if (result < 0) throw sysError(std::string("jail: ") + operation);
}

void closeRange(unsigned first, unsigned last) {
  if (first > last) return;
  require(static_cast<int>(syscall(SYS_close_range, first, last, 0)), "close other descriptors");
}

void setLimit(__rlimit_resource resource, rlim_t value) {
  rlimit limit{};
  require(getrlimit(resource, &limit), "read a limit");
  limit.rlim_cur = limit.rlim_max = std::min(value, limit.rlim_max);
  require(setrlimit(resource, &limit), "set a limit");
}

// An empty, read-only root: nothing to read, nothing to execute, no device, no socket by name.
void leaveFileSystem() {
  require(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");
  constexpr const char* kMountPoint = "/tmp";  // any folder: only this process ever sees it
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  require(mount("hull-vmm", kMountPoint, "tmpfs", kFlags, "size=4k,nr_inodes=2,mode=0555"),
          "mount an empty root");
  require(chdir(kMountPoint), "enter the empty root");
  require(static_cast<int>(syscall(SYS_pivot_root, ".", ".")), "make it the root");
  require(umount2(".", MNT_DETACH), "leave the old root");
  require(chdir("/"), "enter the empty root");
  require(mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, nullptr),
          "make the root read-only");
}

void dropCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  require(static_cast<int>(syscall(SYS_capset, &header, none.data())), "drop capabilities");
}

void becomeUser(uint32_t uid, uint32_t gid) {
  if (uid == 0) return;
  require(setgroups(0, nullptr), "drop groups");
  require(setresgid(gid, gid, gid), "change the group");
  require(setresuid(uid, uid, uid), "change the user");
}

}  // namespace

std::vector<int> descriptorsOf(const VmConfig& config) {
  std::vector<int> all{config.kernel_fd, config.initrd_fd, config.console_fd, config.control_fd,
                       config.status_fd};
  for (const auto& disk : config.disks) {
    for (const auto& segment : disk.segments) all.push_back(segment.fd);
  }
  if (config.net) all.push_back(config.net->tap_fd);
  if (config.vsock) all.push_back(config.vsock->listener_fd);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  all.erase(std::remove(all.begin(), all.end(), -1), all.end());
  return all;
}

void closeUnknownDescriptors(const std::vector<int>& keep) {
  unsigned next = STDERR_FILENO + 1;
  for (const int fd : keep) {
    const auto kept = static_cast<unsigned>(fd);
    if (kept < next) continue;
    closeRange(next, kept - 1);
    next = kept + 1;
  }
  closeRange(next, UINT_MAX);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO}) {
    if (std::binary_search(keep.begin(), keep.end(), standard)) continue;
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) throw sysError("jail: open /dev/null");
    require(dup2(null.get(), standard), "silence a standard descriptor");
  }
}

void enterJail(uint32_t uid, uint32_t gid) {
  clearenv();
  setLimit(RLIMIT_CORE, 0);
  setLimit(RLIMIT_NOFILE, kMaxDescriptors);
  if (geteuid() == 0) {
    require(unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS), "leave namespaces");
    leaveFileSystem();
    becomeUser(uid, gid);
  } else if (uid != 0 && uid != geteuid()) {
    throw Error(ErrorKind::kForbidden, fmt::format("jail: only root can become user {}", uid));
  } else {
    log::info("not root: reduced jail, system call filter and limits only");
  }
  dropCapabilities();
  require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "forbid new privileges");
  require(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "forbid dumps");
}

}  // namespace hull::vmm
