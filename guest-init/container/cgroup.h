// One container's cgroup v2 directory; removed on destruction, which kills what is still in it.
// The event loop's thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

class Cgroup {
 public:
  // Creates `path`. A limit of 0 is none; a limit whose controller is missing is an error.
  Cgroup(std::string path, uint64_t pids_limit, uint64_t memory_bytes);
  ~Cgroup();
  Cgroup(const Cgroup&) = delete;
  Cgroup& operator=(const Cgroup&) = delete;

  int fd() const { return directory_.get(); }  // for CLONE_INTO_CGROUP
  void killAll();
  void freeze(bool on);
  void setLimits(const SetLimits& limits);  // throws naming the file that does not take its limit
  uint64_t oomKills() const;

 private:
  void limit(const char* file, const std::string& value);

  std::string path_;
  Fd directory_;
};

}  // namespace hull::guest
