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
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/jail/landlock.h"

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

// The strings themselves, too: they stay readable in /proc and in memory.
void emptyEnvironment() {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    explicit_bzero(*entry, std::strlen(*entry));
  }
  clearenv();
}

constexpr int kNamespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS;

// user_namespaces(7): without a mapping of its own user, the process could not mount anything.
void mapOwnUser(uint32_t uid, uint32_t gid) {
  const auto put = [](const char* file, const std::string& text) {
    writeFull(openFile(file, O_WRONLY).get(), text);
  };
  put("/proc/self/setgroups", "deny");
  put("/proc/self/uid_map", fmt::format("{0} {0} 1", uid));
  put("/proc/self/gid_map", fmt::format("{0} {0} 1", gid));
}

// What an ordinary user can have of the jail, where the host lets him make user namespaces. Empty:
// all of it; otherwise what is missing, and why.
std::string leaveNamespacesAsUser() {
  const uint32_t uid = geteuid();
  const uint32_t gid = getegid();
  if (unshare(CLONE_NEWUSER | kNamespaces) < 0) {
    return fmt::format("no namespaces of its own ({})", std::strerror(errno));
  }
  try {
    mapOwnUser(uid, gid);
    leaveFileSystem();
  } catch (const Error& error) {
    return fmt::format("no empty root ({})", error.what());
  }
  return {};
}

void dropCapabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  require(static_cast<int>(syscall(SYS_capset, &header, none.data())), "drop capabilities");
}

// No program that this process might ever start could get a capability back. Before the change of
// user, which takes the right to do this away.
void emptyBoundingSet() {
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    require(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "empty the capability bounding set");
  }
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
  for (const auto& net : config.nets) all.insert(all.end(), {net.tap_fd, net.stream_fd});
  if (config.vsock) all.push_back(config.vsock->listener_fd);
  if (config.fs) all.push_back(config.fs->socket_fd);
  if (config.restore) {
    all.push_back(config.restore->state_fd);
    all.push_back(config.restore->memory_fd);
  }
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
  emptyEnvironment();
  setLimit(RLIMIT_CORE, 0);
  setLimit(RLIMIT_NOFILE, kMaxDescriptors);
  std::string missing;
  if (geteuid() == 0) {
    require(unshare(kNamespaces), "leave namespaces");
    leaveFileSystem();
    emptyBoundingSet();
    becomeUser(uid, gid);
  } else if (uid != 0 && uid != geteuid()) {
    throw Error(ErrorKind::kForbidden, fmt::format("jail: only root can become user {}", uid));
  } else {
    missing = "no user of its own";
    const std::string more = leaveNamespacesAsUser();
    if (!more.empty()) missing += ", " + more;
  }
  dropCapabilities();
  require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "forbid new privileges");
  require(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "forbid dumps");
  if (!giveUpFiles()) missing += missing.empty() ? "no Landlock" : ", no Landlock";
  if (!missing.empty()) log::info("reduced jail: " + missing);
}

}  // namespace hull::vmm
