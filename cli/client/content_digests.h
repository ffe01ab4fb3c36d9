// SHA-256 of files, remembered in a file of the user's cache so that a file that has not changed is
// not read again. What a file is told by: device, inode, size, and the times of its last change. A
// file that was changed just before it was read may change again without a new time (clocks tick
// coarsely): its digest counts for this run and is not remembered. One thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/hash.h"

namespace hull::cli {

inline constexpr int64_t kSettledSeconds = 2;  // the coarsest clock of a file system: FAT's

class ContentDigests {
 public:
  // `cache`: the file; one that is absent or damaged is as good as empty. `now`: seconds since
  // 1970.
  explicit ContentDigests(std::string cache, std::function<int64_t()> now = secondsNow);

  // Of a regular file whose attributes are `info`, not an empty one; read when it is not known.
  // None when it changes meanwhile. Throws when it cannot be read.
  std::optional<Sha256> of(const std::string& path, const struct stat& info);
  // As far as it is known already.
  std::optional<Sha256> known(const struct stat& info) const;

  // Remembers what this run asked for, and nothing else. That it cannot is no error.
  void save() const;

  size_t filesRead() const { return files_read_; }

 private:
  struct Known {
    uint64_t size = 0;  // 0: nothing is known
    timespec mtime{}, ctime{};
    Sha256 digest{};
    bool settled = false;  // it may be remembered
    bool wanted = false;   // by this run
    bool fits(const struct stat& info) const;
  };
  static int64_t secondsNow();
  void load();

  std::string cache_;
  std::function<int64_t()> now_;
  std::map<std::pair<uint64_t, uint64_t>, Known> files_;  // by device and inode
  size_t files_read_ = 0;
};

// $XDG_CACHE_HOME/hull/contexts or ~/.cache/hull/contexts, and in it the file for this folder.
std::string contentCachePath(const std::string& folder);

}  // namespace hull::cli
