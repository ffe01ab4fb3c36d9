#include "guest-init/process/program.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

// 0 or an errno.
int checkExecutable(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) < 0) return errno;
  if (S_ISDIR(info.st_mode)) return EISDIR;
  if (!S_ISREG(info.st_mode)) return EACCES;
  // Effective ids, and execute permission must be in the mode even for root.
  if (eaccess(path.c_str(), X_OK) < 0) return errno;
  return 0;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

}  // namespace

const char* findVariable(const std::vector<std::string>& environment, std::string_view name) {
  for (auto it = environment.rbegin(); it != environment.rend(); ++it) {
    if (it->size() > name.size() && it->starts_with(name) && (*it)[name.size()] == '=') {
      return it->c_str() + name.size() + 1;
    }
  }
  return nullptr;
}

std::string findProgram(const std::string& name, const std::vector<std::string>& environment) {
  const std::string exec = "exec: " + quoted(name) + ": ";
  if (name.find('/') != std::string::npos) {
    switch (const int cause = checkExecutable(name)) {
      case 0:
        return name;
      case ENOENT:
      case ENOTDIR:
        throw Error(ErrorKind::kNotFound, exec + "stat " + name + ": no such file or directory");
      case EISDIR:
        throw Error(ErrorKind::kForbidden, exec + "is a directory");
      case EACCES:
      case EPERM:
        throw Error(ErrorKind::kForbidden, exec + "permission denied");
      default:
        throw sysError(exec + "stat " + name, cause);
    }
  }
  std::string found;
  const char* path = findVariable(environment, "PATH");
  if (!name.empty()) {
    splitInto(path ? std::string_view(path) : kDefaultPath, ':', [&](std::string_view directory) {
      std::string candidate = directory.empty() ? "." : std::string(directory);
      candidate += '/' + name;
      if (checkExecutable(candidate) == 0) found = candidate;
      return found.empty();
    });
  }
  if (found.empty()) {
    throw Error(ErrorKind::kNotFound, exec + "executable file not found in $PATH");
  }
  return found;
}

}  // namespace hull::guest
