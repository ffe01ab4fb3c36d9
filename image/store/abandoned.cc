#include "image/store/abandoned.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace hull::image {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLockName = "/.lock";

void lock(int fd, int operation, const std::string& path) {
  while (flock(fd, operation) < 0) {
    if (errno != EINTR) throw sysError("lock " + path);
  }
}

// Makers hold this shared while a temporary exists but is not locked yet; sweepers hold it alone.
Fd lockStore(const std::string& root, int operation) {
  const std::string path = root + kLockName;
  Fd fd = openFile(path, O_RDWR | O_CREAT, 0600);
  lock(fd.get(), operation, path);
  return fd;
}

std::string temporaryName(const std::string& directory) {
  return directory + "/" + std::string(kPendingFilePrefix) + randomHex(8);
}

}  // namespace

PendingFile makePendingFile(const std::string& root, const std::string& directory) {
  const Fd guard = lockStore(root, LOCK_SH);
  PendingFile file(directory);
  lock(file.fd(), LOCK_EX, file.path());
  return file;
}

PendingFolder::PendingFolder(const std::string& root, const std::string& directory) {
  const Fd guard = lockStore(root, LOCK_SH);
  const std::string path = temporaryName(directory);
  if (::mkdir(path.c_str(), 0700) < 0) throw sysError("create folder " + path);
  path_ = path;
  try {
    lock_ = openFile(path_, O_RDONLY | O_DIRECTORY);
    lock(lock_.get(), LOCK_EX, path_);
  } catch (...) {
    ::rmdir(path_.c_str());
    throw;
  }
}

PendingFolder::~PendingFolder() {
  if (path_.empty()) return;
  std::error_code ignored;  // leftovers are swept at the next start
  fs::remove_all(path_, ignored);
}

bool PendingFolder::publish(const std::string& path) {
  if (fsync(lock_.get()) < 0) throw sysError("sync folder " + path_);
  if (::rename(path_.c_str(), path.c_str()) < 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) return false;
    throw sysError("rename " + path_ + " to " + path);
  }
  path_.clear();
  syncDirectory(fs::path(path).parent_path().string());
  return true;
}

void removeFolder(const std::string& path) {
  const std::string trash = temporaryName(fs::path(path).parent_path().string());
  if (::rename(path.c_str(), trash.c_str()) < 0) {
    if (errno == ENOENT) return;
    throw sysError("remove " + path);
  }
  std::error_code ignored;  // it is out of the way; the next start sweeps what is left
  fs::remove_all(trash, ignored);
}

void sweepAbandoned(const std::string& root, const std::string& directory) {
  const Fd guard = lockStore(root, LOCK_EX);
  for (const auto& item : fs::directory_iterator(directory)) {
    const std::string path = item.path().string();
    if (!item.path().filename().string().starts_with(kPendingFilePrefix)) continue;
    const Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (fd.valid() && flock(fd.get(), LOCK_EX | LOCK_NB) < 0) continue;  // somebody is at it
    std::error_code ignored;  // swept again at the next start
    fs::remove_all(item.path(), ignored);
  }
}

}  // namespace hull::image
