// This file defines libc's functions by their own names: no inline or renamed ones in its headers.
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include "base/testing/faults.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <mutex>
#include <set>
#include <utility>

namespace hull::testing {
namespace {

struct Plan {
  std::mutex mutex;
  std::string folder;
  uint64_t nth = 0;
  FaultMode mode = FaultMode::kFail;
  FaultReport report;
  std::set<std::pair<dev_t, ino_t>> dirty;  // written to since the last sync
};
std::atomic<bool> armed = false;

Plan& plan() {
  static Plan* const made = new Plan;  // outlives every destructor that still writes
  return *made;
}

std::string pathOf(int fd) {
  char text[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), text, sizeof text);
  return size < 0 ? std::string() : std::string(text, static_cast<size_t>(size));
}

std::string pathAt(int directory, const char* name) {
  if (name[0] == '/' || directory == AT_FDCWD) return name;
  return pathOf(directory) + "/" + name;
}

// Counts the operation; true when it is the one to fail.
bool meetsFault(const char* operation, const std::string& path) {
  Plan& p = plan();
  const std::lock_guard lock(p.mutex);
  if (!armed || !path.starts_with(p.folder + "/")) return false;
  if (++p.report.operations != p.nth) return false;
  if (p.mode == FaultMode::kExit) ::_exit(kFaultStatus);
  p.report.fault = std::string(operation) + " " + path;
  return true;
}

int failWith(int error_number) {
  errno = error_number;
  return -1;
}

void mark(int fd, bool dirty) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return;
  Plan& p = plan();
  const std::lock_guard lock(p.mutex);
  const std::pair key(info.st_dev, info.st_ino);
  if (dirty && S_ISREG(info.st_mode))
    p.dirty.insert(key);
  else
    p.dirty.erase(key);
}

// `path`, or when it is a folder any file right in it, has something that is not synced.
bool isUnsynced(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return false;
  {
    Plan& p = plan();
    const std::lock_guard lock(p.mutex);
    if (p.dirty.contains({info.st_dev, info.st_ino})) return true;
  }
  if (!S_ISDIR(info.st_mode)) return false;
  DIR* const folder = ::opendir(path.c_str());
  bool found = false;
  while (const dirent* item = folder ? ::readdir(folder) : nullptr) {
    if (item->d_name[0] != '.') found = found || isUnsynced(path + "/" + item->d_name);
  }
  if (folder) ::closedir(folder);
  return found;
}

int openCounted(int directory, const char* name, int flags, mode_t mode) {
  if (armed && (flags & (O_CREAT | O_TRUNC | O_TMPFILE)) != 0) {
    const std::string path = pathAt(directory, name);
    struct stat info {};
    const bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
    const bool changes = nameless || (flags & O_TRUNC) != 0 || ::lstat(path.c_str(), &info) != 0;
    // A nameless file counts as something below its folder.
    if (changes && meetsFault("open", nameless ? path + "/" : path)) return failWith(ENOSPC);
  }
  return static_cast<int>(::syscall(SYS_openat, directory, name, flags, mode));
}

mode_t modeOf(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

int syncCounted(int fd, const char* operation) {
  if (!armed) return 0;
  if (meetsFault(operation, pathOf(fd) + "/")) return failWith(EIO);
  mark(fd, false);
  return 0;
}

int renameCounted(const std::string& from, const std::string& to, unsigned flags) {
  if (armed) {
    if (meetsFault("rename", from)) return failWith(ENOSPC);
    if (to.find("/.tmp-") == std::string::npos && isUnsynced(from)) {
      const std::lock_guard lock(plan().mutex);
      plan().report.unsynced_publications.push_back(to);
    }
  }
  return static_cast<int>(
      ::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}

}  // namespace

void armFault(const std::string& folder, uint64_t nth, FaultMode mode) {
  Plan& p = plan();
  const std::lock_guard lock(p.mutex);
  p.folder = folder;
  p.nth = nth;
  p.mode = mode;
  p.report = {};
  p.dirty.clear();
  armed = true;
}

FaultReport disarmFault() {
  Plan& p = plan();
  const std::lock_guard lock(p.mutex);
  armed = false;
  return std::exchange(p.report, {});
}

}  // namespace hull::testing

// libc's own names. glibc's headers declare most of them noexcept or with attributes; the C ones
// are matched as they are declared there.
using namespace hull::testing;  // NOLINT

extern "C" {

int open(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = modeOf(flags, arguments);
  va_end(arguments);
  return openCounted(AT_FDCWD, name, flags, mode);
}
int open64(const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = modeOf(flags, arguments);
  va_end(arguments);
  return openCounted(AT_FDCWD, name, flags, mode);
}
int openat(int directory, const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = modeOf(flags, arguments);
  va_end(arguments);
  return openCounted(directory, name, flags, mode);
}
int openat64(int directory, const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = modeOf(flags, arguments);
  va_end(arguments);
  return openCounted(directory, name, flags, mode);
}
int __open_2(const char* name, int flags) {
  return openCounted(AT_FDCWD, name, flags, 0);
}
int __open64_2(const char* name, int flags) {
  return openCounted(AT_FDCWD, name, flags, 0);
}
int __openat_2(int directory, const char* name, int flags) {
  return openCounted(directory, name, flags, 0);
}
int __openat64_2(int directory, const char* name, int flags) {
  return openCounted(directory, name, flags, 0);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  if (armed) {
    if (meetsFault("write", pathOf(fd))) return failWith(ENOSPC);
    mark(fd, true);
  }
  return ::syscall(SYS_write, fd, bytes, size);
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  if (armed) {
    if (meetsFault("pwrite", pathOf(fd))) return failWith(ENOSPC);
    mark(fd, true);
  }
  return ::syscall(SYS_pwrite64, fd, bytes, size, offset);
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  return pwrite64(fd, bytes, size, offset);
}
int ftruncate64(int fd, off64_t size) noexcept {
  if (armed) {
    if (meetsFault("ftruncate", pathOf(fd))) return failWith(ENOSPC);
    mark(fd, true);
  }
  return static_cast<int>(::syscall(SYS_ftruncate, fd, size));
}
int ftruncate(int fd, off_t size) noexcept {
  return ftruncate64(fd, size);
}
int fsync(int fd) {
  return syncCounted(fd, "fsync");
}
int fdatasync(int fd) {
  return syncCounted(fd, "fdatasync");
}

int mkdir(const char* path, mode_t mode) noexcept {
  struct stat info {};
  if (armed && ::lstat(path, &info) != 0 && meetsFault("mkdir", path)) return failWith(ENOSPC);
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int rename(const char* from, const char* to) noexcept {
  return renameCounted(from, to, 0);
}
int unlinkat(int directory, const char* name, int flags) noexcept {
  if (armed && meetsFault("unlink", pathAt(directory, name))) return failWith(EIO);
  return static_cast<int>(::syscall(SYS_unlinkat, directory, name, flags));
}
int unlink(const char* path) noexcept {
  return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char* path) noexcept {
  return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
int remove(const char* path) noexcept {
  struct stat info {};
  if (::lstat(path, &info) != 0) return -1;
  return unlinkat(AT_FDCWD, path, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0);
}

}  // extern "C"
