// The members of an image archive, spooled to one nameless file and found by cleaned path. Paths
// in an archive are looked up in a map only and never reach the host's file system. Reading is
// safe from several threads once the spool is made.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/stream.h"

namespace hull::image {

inline constexpr uint64_t kMaxArchiveBytes = uint64_t{256} << 30;
inline constexpr size_t kMaxArchiveMembers = 100'000;

class ArchiveSpool {
 public:
  // Reads `archive` (plain, gzip, zstd) to its end. `folder`: where the nameless file lives.
  ArchiveSpool(Source& archive, const std::string& folder);

  bool has(std::string_view path) const;
  uint64_t size(std::string_view path) const;
  // Both follow links inside the archive; throw kCorrupt when there is no such file.
  std::unique_ptr<Source> open(std::string_view path) const;
  std::string read(std::string_view path, size_t limit) const;

 private:
  struct Member {
    uint64_t offset = 0;
    uint64_t size = 0;
    std::string link;  // cleaned path of what it stands for; empty: a file
  };
  const Member* find(std::string_view path) const;
  const Member& get(std::string_view path) const;

  Fd file_;
  std::map<std::string, Member, std::less<>> members_;
};

}  // namespace hull::image
