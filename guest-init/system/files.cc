#include "guest-init/system/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/error.h"
#include "guest-init/system/xattrs.h"

namespace hull::guest {

std::string readSmallFile(const std::string& path, size_t limit) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return {};
    throw sysError("open " + path);
  }
  struct stat info;
  if (fstat(fd.get(), &info) < 0 || !S_ISREG(info.st_mode)) {
    throw Error(ErrorKind::kInvalidArgument, "read " + path + ": not a regular file");
  }
  std::string text;
  for (;;) {
    char piece[4096];
    const size_t got = readSome(fd.get(), std::as_writable_bytes(std::span(piece)));
    if (got == 0) return text;
    text.append(piece, got);
    if (text.size() > limit) throw Error(ErrorKind::kTooLarge, "read " + path + ": too large");
  }
}

void writeSmallFile(const std::string& path, std::string_view contents, mode_t mode) {
  const Fd fd = openFile(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
  inContext("write " + path, [&] { writeFull(fd.get(), contents); });
}

bool writeControl(const std::string& path, std::string_view contents) {
  const Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), contents.data(), contents.size()) ==
                   static_cast<ssize_t>(contents.size());
}

void makeDirectory(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) < 0 && errno != EEXIST) throw sysError("create directory " + path);
}

void makeDirectoryPath(const std::string& path, mode_t mode) {
  for (size_t at = 1; at != std::string::npos && at <= path.size();) {
    at = path.find('/', at);
    const std::string prefix = path.substr(0, at);
    if (at != std::string::npos) ++at;
    if (prefix.empty() || isDirectory(prefix)) continue;
    if (mkdir(prefix.c_str(), mode) < 0) throw sysError("mkdir " + prefix);
  }
}

bool isDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool exists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

void copyAttributes(int from, int to) {
  struct stat info;
  if (fstat(from, &info) < 0) throw sysError("read attributes");
  if (fchown(to, info.st_uid, info.st_gid) < 0 || fchmod(to, info.st_mode & 07777) < 0) {
    throw sysError("copy attributes");
  }
  for (const auto& [name, value] : readXattrs(from)) setXattr(to, name, value);
  const timespec times[2] = {info.st_atim, info.st_mtim};
  futimens(to, times);
}

void removeTree(int directory, const std::string& name) {
  if (unlinkat(directory, name.c_str(), 0) == 0 || errno == ENOENT) return;
  if (errno != EISDIR && errno != EPERM) throw sysError("remove " + name);
  const int fd = openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) throw sysError("remove " + name);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(fd), closedir);
  if (!listing) throw sysError("remove " + name);
  while (const dirent* entry = readdir(listing.get())) {
    const std::string child = entry->d_name;
    if (child != "." && child != "..") removeTree(fd, child);
  }
  if (unlinkat(directory, name.c_str(), AT_REMOVEDIR) < 0) throw sysError("remove " + name);
}

}  // namespace hull::guest
