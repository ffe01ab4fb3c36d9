// Trees to tar. Walks with directory descriptors and never follows a symlink, so a tree that
// changes underneath or is hostile can only yield odd content. Changes the working directory: runs
// in a transfer's own process.
#pragma once

#include <string>

#include "base/fd.h"
#include "guest-init/archive/tar.h"

namespace hull::guest {

inline constexpr size_t kMaxTreeDepth = 1024;

enum class PackKind {
  kPlain,  // what is there
  kLayer,  // an overlay's upper directory: its whiteouts and opaque marks in OCI's form
};

// Everything below `directory`, sorted, as "<prefix>/name" (or "name" without a prefix); the
// directory itself is not an entry.
void packContents(const Fd& directory, const std::string& prefix, PackKind kind, TarWriter& out);

// The object `name` in `directory` under the name `as`, with everything below it.
void packObject(const Fd& directory, const std::string& name, const std::string& as,
                TarWriter& out);

}  // namespace hull::guest
