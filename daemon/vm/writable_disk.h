// A container's writable disk: a sparse ext4, cloned from a template that is formatted once for
// each size. The host formats and copies; it never reads a file system that a guest has written.
// Any thread; two may make the same template at once (the last one's, equally good, stays).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.h"

namespace hull::engine {

inline constexpr uint64_t kMinWritableBytes = uint64_t{16} << 20;
inline constexpr uint64_t kMaxWritableBytes = uint64_t{16} << 40;

// "<template_disk>-<MiB>", made when it is missing. `bytes` is rounded up to whole MiB.
std::string templateDisk(const std::string& template_disk, uint64_t bytes);

// Makes `path` a new, empty one of `bytes` (rounded up to MiB) without a template. Throws
// kInvalidArgument naming `what` when the size is out of bounds.
void formatDisk(const std::string& path, uint64_t bytes, const std::string& what);

// Makes `path` a copy of the template that shares or skips everything it can: FICLONE where the
// file system clones, otherwise only the parts that hold data are copied. Opened for writing.
Fd cloneDisk(const std::string& from, const std::string& path);

}  // namespace hull::engine
