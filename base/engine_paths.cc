#include "base/engine_paths.h"

#include <unistd.h>

#include <cstdlib>

#include "base/error.h"

namespace hull {

namespace {

// XDG Base Directory Specification: a relative path there counts as none.
std::string folderOf(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value == '/' ? value : "";
}

}  // namespace

std::string engineRoot() {
  if (geteuid() == 0) return "/var/lib/hull";
  if (const std::string data = folderOf("XDG_DATA_HOME"); !data.empty()) return data + "/hull";
  if (const std::string home = folderOf("HOME"); !home.empty()) return home + "/.local/share/hull";
  throw Error(ErrorKind::kInvalidArgument,
              "find the engine's folder: set HOME or XDG_DATA_HOME, or name one with --root");
}

std::string engineSocket() {
  if (geteuid() == 0) return kSystemEngineSocket;
  const std::string runtime = folderOf("XDG_RUNTIME_DIR");
  if (!runtime.empty()) return runtime + "/hull/hulld.sock";
  return engineRoot() + "/hulld.sock";
}

}  // namespace hull
