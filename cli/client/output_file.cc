#include "cli/client/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace hull::cli {

namespace fs = std::filesystem;

namespace {

constexpr mode_t kAllowed = 0666;

// What a file that open(2) would make now would have.
mode_t newFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return kAllowed & ~mask;
}

}  // namespace

OutputFile::OutputFile(const std::string& path) {
  if (path.empty()) return;
  struct stat info;
  const bool there = ::stat(path.c_str(), &info) == 0;
  if (there && !S_ISREG(info.st_mode)) {
    direct_ = openFile(path, O_WRONLY);
    return;
  }
  // A link stays one, and what it names gets the contents.
  if (!there && fs::is_symlink(path)) {
    direct_ = openFile(path, O_WRONLY | O_CREAT, kAllowed);
    return;
  }
  path_ = there ? fs::canonical(path).string() : fs::absolute(path).string();
  if (there && access(path_.c_str(), W_OK) < 0) throw sysError("write " + path);
  try {
    pending_.emplace(fs::path(path_).parent_path().string(),
                     there ? info.st_mode & kAllowed : newFileMode());
  } catch (const Error&) {
    if (!there) throw;
    direct_ = openFile(path_, O_WRONLY | O_TRUNC);  // a file of ours in somebody else's folder
  }
}

int OutputFile::fd() const {
  if (pending_) return pending_->fd();
  return direct_ ? direct_.get() : STDOUT_FILENO;
}

void OutputFile::finish() {
  if (pending_) pending_->publish(path_);
}

}  // namespace hull::cli
