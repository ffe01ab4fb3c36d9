#include "base/open_in_root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace hull {

Fd openInRoot(int root, const std::string& path, int flags) noexcept {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const char* name = path.empty() ? "." : path.c_str();
  for (int tries = 1;; ++tries) {
    Fd opened(static_cast<int>(syscall(SYS_openat2, root, name, &how, sizeof how)));
    const bool again = !opened && (errno == EAGAIN || errno == EINTR);
    if (!again || tries == kOpenInRootTries) return opened;
  }
}

}  // namespace hull
