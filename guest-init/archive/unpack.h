// Tar to trees. Every path is resolved inside a root that symlinks cannot leave (openat2), ".." is
// refused, the last component is never followed. Changes the working directory: runs in a
// transfer's own process, with umask 0 and the rights of root.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/stream.h"

namespace hull::guest {

struct UnpackTarget {
  const Fd& root;         // symlinks resolve inside
  std::string directory;  // where entries go, a path inside root; "" is root itself
  // Layers: whiteouts become overlay's, and a parent directory that the tar does not mention gets
  // the attributes it has in `below` (the merged tree so far). nullptr: an ordinary archive.
  const Fd* below = nullptr;
};

void unpack(Source& tar, const UnpackTarget& target);

}  // namespace hull::guest
