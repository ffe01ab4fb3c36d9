#include "base/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>

namespace hull {

uint64_t raiseDescriptorLimit() noexcept {
  rlimit now{};
  if (getrlimit(RLIMIT_NOFILE, &now) < 0) return 0;
  const rlimit wanted{kWantedDescriptors, std::max<rlim_t>(kWantedDescriptors, now.rlim_max)};
  if (now.rlim_cur < wanted.rlim_cur && setrlimit(RLIMIT_NOFILE, &wanted) < 0) {
    now.rlim_cur = std::min(wanted.rlim_cur, now.rlim_max);  // without CAP_SYS_RESOURCE
    setrlimit(RLIMIT_NOFILE, &now);
  }
  getrlimit(RLIMIT_NOFILE, &now);
  return now.rlim_cur;
}

}  // namespace hull
