// Where a command writes what it was asked for (save -o, export -o): a file that gets its name when
// it is complete, the very thing when the path names a pipe or a device, or standard output. One
// thread.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/file.h"

namespace hull::cli {

class OutputFile {
 public:
  // Empty: standard output. Throws Error when `path` cannot be written.
  explicit OutputFile(const std::string& path);
  int fd() const;
  // Everything has been written. Without it a file is as it was before.
  void finish();

 private:
  std::string path_;  // of a regular file, behind symbolic links
  std::optional<PendingFile> pending_;
  Fd direct_;
};

}  // namespace hull::cli
