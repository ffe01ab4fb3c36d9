#include "daemon/engine/cpu_placement.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"

namespace hull::engine {

namespace {

constexpr double kDefaultShares = 1024;
constexpr double kStep = 1.25;

cpu_set_t setOf(const std::vector<uint32_t>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const uint32_t cpu : cpus) {
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  }
  return set;
}

std::vector<pid_t> threadsOf(pid_t process) {
  std::vector<pid_t> threads;
  std::error_code failed;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task", failed)) {
    threads.push_back(static_cast<pid_t>(std::stol(entry.path().filename().string())));
  }
  return threads;
}

}  // namespace

int nicenessOfShares(uint64_t shares) {
  if (shares == 0) return 0;
  const double steps = std::log(kDefaultShares / static_cast<double>(shares)) / std::log(kStep);
  return std::clamp(static_cast<int>(std::lround(steps)), -20, 19);
}

void checkCpus(const LimitSpec& limits) {
  cpu_set_t available;
  CPU_ZERO(&available);
  if (sched_getaffinity(0, sizeof available, &available) != 0) throw sysError("list the CPUs");
  for (const uint32_t cpu : limits.cpus) {
    if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &available)) continue;
    throw Error(ErrorKind::kInvalidArgument, "Requested CPUs are not available - requested CPU " +
                                                 std::to_string(cpu) + ", this host offers " +
                                                 std::to_string(CPU_COUNT(&available)));
  }
}

void placeOnCpus(pid_t vmm, const LimitSpec& limits) {
  if (limits.cpus.empty() && limits.cpu_shares == 0) return;
  const cpu_set_t set = setOf(limits.cpus);
  for (const pid_t thread : threadsOf(vmm)) {
    if (!limits.cpus.empty() && sched_setaffinity(thread, sizeof set, &set) != 0 &&
        errno != ESRCH) {
      throw sysError("run the virtual machine on the CPUs of its cpuset");
    }
    if (limits.cpu_shares != 0 &&
        setpriority(PRIO_PROCESS, static_cast<id_t>(thread), nicenessOfShares(limits.cpu_shares)) !=
            0 &&
        errno != ESRCH) {
      if (errno == EACCES || errno == EPERM) {
        throw Error(ErrorKind::kForbidden,
                    "CPU shares above 1024 need an engine that runs as root: others may only give "
                    "way");
      }
      throw sysError("give the virtual machine its CPU shares");
    }
  }
}

}  // namespace hull::engine
