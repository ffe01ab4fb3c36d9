#include "base/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "base/stream.h"

namespace hull {

namespace fs = std::filesystem;

namespace {
std::string parentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}
}  // namespace

std::string readFile(const std::string& path, size_t limit_bytes) {
  const Fd fd = openFile(path, O_RDONLY);
  FdSource source(fd.get());
  return inContext(path, [&] { return readAll(source, limit_bytes, "file"); });
}

bool fileExists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

void writeFileAtomic(const std::string& path, std::string_view contents, mode_t mode) {
  PendingFile file(parentOf(path), mode);
  inContext("write " + path, [&] { writeFull(file.fd(), contents); });
  file.publish(path);
}

void makeDirectories(const std::string& path, mode_t mode) {
  if (path.empty() || path == "/" || path == ".") return;
  if (::mkdir(path.c_str(), mode) == 0) return;
  if (errno == EEXIST) return;
  if (errno != ENOENT) throw sysError("create folder " + path);
  makeDirectories(parentOf(path), mode);
  if (::mkdir(path.c_str(), mode) < 0 && errno != EEXIST) throw sysError("create folder " + path);
}

void syncDirectory(const std::string& path) {
  const Fd fd = openFile(path, O_RDONLY | O_DIRECTORY);
  if (fsync(fd.get()) < 0) throw sysError("sync folder " + path);
}

void renameDurably(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) < 0) throw sysError("rename " + from + " to " + to);
  syncDirectory(parentOf(to));
}

PendingFile::PendingFile(const std::string& directory, mode_t mode)
    : path_(directory + "/" + std::string(kPendingFilePrefix) + randomHex(8)),
      fd_(openFile(path_, O_RDWR | O_CREAT | O_EXCL, mode)) {}

PendingFile::PendingFile(PendingFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}

PendingFile::~PendingFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

void PendingFile::publish(const std::string& path) {
  if (fsync(fd_.get()) < 0) throw sysError("sync " + path);
  renameDurably(path_, path);
  path_.clear();
}

TemporaryDirectory::TemporaryDirectory(const std::string& prefix)
    : TemporaryDirectory(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", prefix) {}

TemporaryDirectory::TemporaryDirectory(const std::string& parent, const std::string& prefix)
    : path_(parent + "/" + prefix + ".XXXXXX") {
  if (!mkdtemp(path_.data())) throw sysError("create temporary folder in " + parent);
}

TemporaryDirectory::~TemporaryDirectory() {
  if (path_.empty()) return;
  std::error_code ignored;  // a destructor cannot report; leftovers are swept at the next start
  fs::remove_all(path_, ignored);
}

}  // namespace hull
