#include "vmm/jail/landlock.h"

#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/error.h"
#include "base/fd.h"

namespace hull::vmm {

namespace {

// struct landlock_ruleset_attr as of ABI 6; older headers have a shorter one.
struct Rights {
  uint64_t files = 0;
  uint64_t network = 0;  // ABI 4: bind and connect TCP
  uint64_t scoped = 0;   // ABI 6: abstract unix sockets, signals
};

// All rights that an ABI knows (Linux, include/uapi/linux/landlock.h).
Rights allRights(long abi) {
  constexpr unsigned kFirstAbiFileRights = 13;
  unsigned file_rights = kFirstAbiFileRights;
  if (abi >= 2) ++file_rights;  // REFER
  if (abi >= 3) ++file_rights;  // TRUNCATE
  if (abi >= 5) ++file_rights;  // IOCTL_DEV, for what is opened from now on
  Rights rights;
  rights.files = (uint64_t{1} << file_rights) - 1;
  if (abi >= 4) rights.network = 3;
  if (abi >= 6) rights.scoped = 3;
  return rights;
}

size_t bytesKnownTo(long abi) {
  if (abi >= 6) return sizeof(Rights);
  return abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
}

}  // namespace

bool giveUpFiles() {
  const long abi =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) {
    if (errno == ENOSYS || errno == EOPNOTSUPP) return false;
    throw sysError("jail: ask for Landlock");
  }
  const Rights rights = allRights(abi);
  const Fd ruleset(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &rights, bytesKnownTo(abi), 0)));
  if (!ruleset) throw sysError("jail: make a Landlock ruleset");
  if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) < 0) {
    throw sysError("jail: enter the Landlock ruleset");
  }
  return true;
}

}  // namespace hull::vmm
