// The container's own text files, looked up as hull-init does: passwd, group and a user
// specification, separated by zero bytes; and /proc/<pid>/stat.

#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "guest-init/container/process_table.h"
#include "guest-init/process/account.h"
#include "guest-init/system/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::guest;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  ProcessStat stat;
  parseProcessStat(input, stat);
  const auto parts = split(input, '\0');
  if (parts.size() < 3) return 0;
  try {
    const Account account = resolveAccount(parts[0], parts[1], parts[2]);
    if (account.uid > kMaxId || account.gid > kMaxId || account.groups.size() > kMaxGroups) {
      std::abort();
    }
  } catch (const hull::Error&) {
    // Nobody by that name.
  }
  return 0;
}
