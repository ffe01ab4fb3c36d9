// Asks the kernel to begin writing a growing file to disk while it still grows, so that the sync at
// the end waits for its last part only. A hint: errors are the sync's to report. Owner: whoever
// writes the file; one thread at a time.
#pragma once

#include <fcntl.h>

#include <cstdint>

namespace hull {

class WriteBack {
 public:
  static constexpr uint64_t kStepBytes = uint64_t{16} << 20;

  // Everything before `end` has been written to `fd`.
  void written(int fd, uint64_t end) noexcept {
    if (end < begun_ + kStepBytes) return;
    sync_file_range(fd, static_cast<off64_t>(begun_), static_cast<off64_t>(end - begun_),
                    SYNC_FILE_RANGE_WRITE);
    begun_ = end;
  }

 private:
  uint64_t begun_ = 0;  // up to where the kernel was asked
};

}  // namespace hull
