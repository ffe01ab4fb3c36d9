#include "daemon/vm/writable_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"

namespace hull::engine {

namespace {

constexpr uint64_t kMib = 1 << 20;
// A journal, because a VM may be killed at any time and its disk used again; small, because it is
// written before everything else. Below this size mke2fs chooses one itself.
constexpr uint64_t kMinBytesForFixedJournal = 256 * kMib;

std::string mke2fsProgram() {
  for (const char* path : {"/usr/sbin/mke2fs", "/sbin/mke2fs"}) {
    if (fileExists(path)) return path;
  }
  return "mke2fs";  // wherever PATH has it
}

// Inode tables and journal stay holes: a new file reads as zeros, and mke2fs marks the tables as
// zeroed, so that the guest does not write gigabytes of zeros in the background (lazy init).
void format(const std::string& path, uint64_t bytes, const std::string& label) {
  std::vector<std::string> arguments = {
      mke2fsProgram(),
      "-q",
      "-F",
      "-t",
      "ext4",
      "-m",
      "0",
      "-L",
      label,
      "-O",
      "^resize_inode,sparse_super2",
      "-E",
      "lazy_itable_init=0,lazy_journal_init=1,packed_meta_blocks=1,root_owner=0:0"};
  if (bytes >= kMinBytesForFixedJournal) arguments.insert(arguments.end(), {"-J", "size=32"});
  arguments.push_back(path);
  checkCommand(arguments);
}

// The parts of [0, size) that hold data.
void copyData(int from, int to, uint64_t size) {
  off_t at = 0;
  while (static_cast<uint64_t>(at) < size) {
    at = lseek(from, at, SEEK_DATA);
    if (at < 0 && errno == ENXIO) return;  // only a hole is left
    if (at < 0) throw sysError("find data");
    const off_t end = lseek(from, at, SEEK_HOLE);
    if (end < 0) throw sysError("find data");
    loff_t in = at, out = at;
    while (in < end) {
      const ssize_t copied = copy_file_range(from, &in, to, &out, static_cast<size_t>(end - in), 0);
      if (copied < 0 && errno == EINTR) continue;
      if (copied < 0) throw sysError("copy data");
      if (copied == 0) return;
    }
    at = end;
  }
}

uint64_t checkedMib(uint64_t bytes, const std::string& what) {
  if (bytes < kMinWritableBytes || bytes > kMaxWritableBytes) {
    throw Error(ErrorKind::kInvalidArgument,
                what + ": " + std::to_string(bytes) + " bytes is not between 16 MiB and 16 TiB");
  }
  return (bytes + kMib - 1) / kMib;
}

}  // namespace

void formatDisk(const std::string& path, uint64_t bytes, const std::string& what) {
  const uint64_t mib = checkedMib(bytes, what);
  inContext("format " + path, [&] {
    {
      const Fd file = openFile(path, O_RDWR | O_CREAT | O_EXCL, 0600);
      if (ftruncate(file.get(), static_cast<off_t>(mib * kMib)) < 0) throw sysError("set size");
    }
    format(path, mib * kMib, "hull-volume");
  });
}

std::string templateDisk(const std::string& template_disk, uint64_t bytes) {
  const uint64_t mib = checkedMib(bytes, "writable disk");
  const std::string path = template_disk + "-" + std::to_string(mib);
  if (fileExists(path)) return path;
  return inContext("format the writable disks' template", [&] {
    const std::string directory = std::filesystem::path(path).parent_path().string();
    makeDirectories(directory);
    PendingFile file(directory, 0600);
    if (ftruncate(file.fd(), static_cast<off_t>(mib * kMib)) < 0) throw sysError("set size");
    format(file.path(), mib * kMib, "hull-writable");
    file.publish(path);
    return path;
  });
}

Fd cloneDisk(const std::string& from, const std::string& path) {
  return inContext("make writable disk " + path, [&] {
    const Fd source = openFile(from, O_RDONLY);
    Fd copy = openFile(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    try {
      if (ioctl(copy.get(), FICLONE, source.get()) == 0) return copy;
      const uint64_t size = fileSize(source.get());
      if (ftruncate(copy.get(), static_cast<off_t>(size)) < 0) throw sysError("set size");
      copyData(source.get(), copy.get(), size);
      return copy;
    } catch (...) {
      ::unlink(path.c_str());
      throw;
    }
  });
}

}  // namespace hull::engine
