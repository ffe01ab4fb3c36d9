#include "guest-init/system/xattrs.h"

#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace hull::guest {

namespace {

// Kernel limits (XATTR_LIST_MAX, XATTR_SIZE_MAX): nothing is ever longer.
constexpr size_t kMaxXattrBytes = 65536;

// The f*xattr calls refuse O_PATH descriptors; the magic link works for both kinds and for
// symlinks, which cannot be opened otherwise.
std::string magicLink(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

using List = ssize_t (*)(const char*, char*, size_t);
using Get = ssize_t (*)(const char*, const char*, void*, size_t);

std::string readOne(const std::string& path, const char* name, Get get) {
  // Most are small; asking first saves clearing the largest size for every file.
  const ssize_t needed = get(path.c_str(), name, nullptr, 0);
  std::string value(needed <= 0 ? 0 : std::min(static_cast<size_t>(needed), kMaxXattrBytes), '\0');
  const ssize_t size = get(path.c_str(), name, value.data(), value.size());
  value.resize(size < 0 ? 0 : std::min(static_cast<size_t>(size), value.size()));
  return value;
}

std::map<std::string, std::string> readAll(const std::string& path, List list, Get get) {
  std::map<std::string, std::string> found;
  const ssize_t needed = list(path.c_str(), nullptr, 0);
  std::string names(needed <= 0 ? 0 : std::min(static_cast<size_t>(needed), kMaxXattrBytes), '\0');
  if (names.empty()) return found;
  const ssize_t size = list(path.c_str(), names.data(), names.size());
  names.resize(size < 0 ? 0 : static_cast<size_t>(size));
  for (size_t at = 0; at < names.size();) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    if (!name.starts_with(kOverlayXattrPrefix)) found[name] = readOne(path, name.c_str(), get);
  }
  return found;
}

bool taken(int result, const std::string& name) {
  if (result == 0) return true;
  if (errno == ENOTSUP || errno == EPERM || errno == EINVAL) return false;
  throw sysError("set extended attribute " + name);
}

}  // namespace

std::map<std::string, std::string> readXattrs(int fd) {
  return readAll(magicLink(fd), listxattr, getxattr);
}

std::map<std::string, std::string> readXattrsOf(const std::string& path) {
  return readAll(path, llistxattr, lgetxattr);
}

std::string readXattrOf(const std::string& path, const char* name) {
  return readOne(path, name, lgetxattr);
}

bool setXattr(int fd, const std::string& name, const std::string& value) {
  return taken(setxattr(magicLink(fd).c_str(), name.c_str(), value.data(), value.size(), 0), name);
}

bool setXattrOf(const std::string& path, const std::string& name, const std::string& value) {
  return taken(lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0), name);
}

}  // namespace hull::guest
