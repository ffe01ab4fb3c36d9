// Locks on files that vanish with their owner, however it dies: open-file-description locks. Asking
// who holds one does not take it. One object, one owner.
#pragma once

#include <fcntl.h>

#include <string>

#include "base/fd.h"

namespace hull::machine {

// Waits for the lock. `waiting` is called once when somebody else holds it.
template <typename Waiting>
Fd lockFile(const std::string& path, Waiting&& waiting);

// Invalid when somebody else holds it.
Fd tryLockFile(const std::string& path);
void waitForLock(int fd, const std::string& path);
bool isLocked(const std::string& path);  // false when there is no such file

template <typename Waiting>
Fd lockFile(const std::string& path, Waiting&& waiting) {
  Fd lock = tryLockFile(path);
  if (lock) return lock;
  waiting();
  lock = openFile(path, O_RDWR, 0600);
  waitForLock(lock.get(), path);
  return lock;
}

}  // namespace hull::machine
