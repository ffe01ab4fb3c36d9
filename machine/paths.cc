#include "machine/paths.h"

#include <cstdlib>

#include "base/error.h"

namespace hull::machine {

namespace {
std::string folder(const char* own, const char* xdg, const char* below_home) {
  if (const char* value = getenv(own); value && *value) return value;
  if (const char* value = getenv(xdg); value && *value) return std::string(value) + "/hull";
  const char* home = getenv("HOME");
  if (!home || !*home) {
    throw Error(ErrorKind::kInvalidArgument,
                std::string("find the machine's folder: set HOME or ") + own);
  }
  return std::string(home) + below_home;
}
}  // namespace

MachinePaths MachinePaths::fromEnvironment() {
  return {folder("HULL_STATE", "XDG_STATE_HOME", "/.local/state/hull") + "/machine",
          folder("HULL_CACHE", "XDG_CACHE_HOME", "/.cache/hull") + "/machine"};
}

}  // namespace hull::machine
