// Opening paths that somebody else chose, inside a folder that they must not leave: a container's
// root, a share's source. Any thread.
#pragma once

#include <string>

#include "base/fd.h"

namespace hull {

// `path` as one sees it whose root directory is `root`: neither "..", a symbolic link nor one of
// /proc's leads out (openat2(2), RESOLVE_IN_ROOT). Not valid, and errno says why, where it cannot
// be opened. While others rename or mount, the kernel cannot always tell where ".." leads and says
// EAGAIN: it is asked again, kOpenInRootTries times at most.
inline constexpr int kOpenInRootTries = 1000;
Fd openInRoot(int root, const std::string& path, int flags) noexcept;

}  // namespace hull
