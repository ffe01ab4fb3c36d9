#include "guest-init/process/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/error.h"

namespace hull::guest {

void installSeccomp(std::string_view program) {
  const size_t count = program.size() / sizeof(sock_filter);
  if (count == 0 || program.size() % sizeof(sock_filter) != 0 || count > BPF_MAXINSNS) {
    throw Error(ErrorKind::kInvalidArgument, "seccomp filter: not a program");
  }
  std::vector<sock_filter> instructions(count);
  std::memcpy(instructions.data(), program.data(), program.size());
  const sock_fprog filter{static_cast<unsigned short>(count), instructions.data()};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0) {
    throw sysError("install the seccomp filter");
  }
}

}  // namespace hull::guest
