#include "daemon/vm/quota.h"

#include <string>

#include "base/error.h"

namespace hull::engine {

namespace {

// Sums cannot wrap: sizes of machines are bounded (vmm::kMaxMemoryMib, kMaxVcpus).
void requireRoom(uint64_t limit, uint64_t used, uint64_t wanted, const std::string& of_what,
                 const char* option) {
  if (limit == 0 || used + wanted <= limit) return;
  throw Error(ErrorKind::kNoSpace, "this engine's machines may have " + std::to_string(limit) +
                                       of_what + " together; " + std::to_string(used) +
                                       " are in use and " + std::to_string(wanted) +
                                       " more were asked for (stop a container, or start hulld "
                                       "with a larger " +
                                       option + ")");
}

}  // namespace

Quota::Lease Quota::take(MachineSize size) {
  const std::lock_guard lock(mutex_);
  if (limits_.machines != 0 && machines_ >= limits_.machines) {
    throw Error(ErrorKind::kNoSpace,
                "this engine may run " + std::to_string(limits_.machines) +
                    " machines at a time, and does (stop a container, or start hulld with a larger "
                    "--max-machines)");
  }
  requireRoom(limits_.memory_mib, used_.memory_mib, size.memory_mib, " MiB of memory",
              "--max-memory");
  requireRoom(limits_.vcpus, used_.vcpus, size.vcpus, " CPUs", "--max-cpus");
  ++machines_;
  used_.memory_mib += size.memory_mib;
  used_.vcpus += size.vcpus;
  return {shared_from_this(), size};
}

Quota::Lease Quota::takeAnyway(MachineSize size) {
  const std::lock_guard lock(mutex_);
  ++machines_;
  used_.memory_mib += size.memory_mib;
  used_.vcpus += size.vcpus;
  return {shared_from_this(), size};
}

void Quota::giveBack(MachineSize size) {
  const std::lock_guard lock(mutex_);
  --machines_;
  used_.memory_mib -= size.memory_mib;
  used_.vcpus -= size.vcpus;
}

}  // namespace hull::engine
