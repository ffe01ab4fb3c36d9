// What `docker top` shows, read from /proc. The event loop's thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

inline constexpr size_t kMaxListedProcesses = 4096;

std::vector<pid_t> pidsOfCgroup(const std::string& cgroup);  // with the cgroups below, sorted
ProcessTable makeProcessTable(const std::vector<pid_t>& pids);

// The fields of /proc/<pid>/stat that the table needs (proc(5)); the name in it is hostile and may
// hold anything, parentheses included.
struct ProcessStat {
  pid_t parent = 0;
  int terminal = 0;          // device number; 0: none
  uint64_t cpu_ticks = 0;    // user and system
  uint64_t start_ticks = 0;  // since boot
  std::string name;
};
bool parseProcessStat(std::string_view text, ProcessStat& stat);

}  // namespace hull::guest
