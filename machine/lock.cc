#include "machine/lock.h"

#include <fcntl.h>

#include <cerrno>

#include "base/error.h"

namespace hull::machine {

namespace {
struct flock wholeFile() {
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  return range;
}
}  // namespace

Fd tryLockFile(const std::string& path) {
  Fd file = openFile(path, O_RDWR | O_CREAT, 0600);
  struct flock range = wholeFile();
  if (fcntl(file.get(), F_OFD_SETLK, &range) == 0) return file;
  if (errno != EAGAIN && errno != EACCES) throw sysError("lock " + path);
  return Fd();
}

void waitForLock(int fd, const std::string& path) {
  struct flock range = wholeFile();
  while (fcntl(fd, F_OFD_SETLKW, &range) < 0) {
    if (errno != EINTR) throw sysError("lock " + path);
  }
}

bool isLocked(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return false;
  struct flock range = wholeFile();
  if (fcntl(file.get(), F_OFD_GETLK, &range) < 0) throw sysError("ask for the lock on " + path);
  return range.l_type != F_UNLCK;
}

}  // namespace hull::machine
