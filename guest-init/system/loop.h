// Parts of a block device as block devices of their own (loop devices, which do not claim what is
// below them). One thread.
#pragma once

#include <string>

#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

// Of `disk`, which is a block device or a file.
uint64_t diskBytes(int disk);

class LoopDevice {
 public:
  // Direct I/O: the host caches the disk already. Throws kInternal.
  LoopDevice(const std::string& disk, const DiskPart& part);
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  Fd device_;  // the last one who closes it takes it away: we, or what is mounted still
};

}  // namespace hull::guest
