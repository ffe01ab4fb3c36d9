#include "guest-init/system/loop.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/error.h"

namespace hull::guest {

namespace {

// Somebody else may take the free one first.
constexpr int kAttempts = 16;

[[noreturn]] void fail(const std::string& what) {
  const int cause = errno;
  throw Error(ErrorKind::kInternal, sysError(what, cause).what());
}

}  // namespace

uint64_t diskBytes(int disk) {
  struct stat info {};
  if (fstat(disk, &info) < 0) fail("look at the disk");
  if (!S_ISBLK(info.st_mode)) return static_cast<uint64_t>(info.st_size);
  uint64_t bytes = 0;
  if (ioctl(disk, BLKGETSIZE64, &bytes) < 0) fail("measure the disk");
  return bytes;
}

LoopDevice::LoopDevice(const std::string& disk, const DiskPart& part) {
  const int mode = part.read_only ? O_RDONLY : O_RDWR;
  const Fd below = openFile(disk, mode);
  const Fd control = openFile("/dev/loop-control", O_RDWR);
  loop_config config{};
  config.fd = static_cast<uint32_t>(below.get());
  config.info.lo_offset = part.offset;
  config.info.lo_sizelimit = part.length;
  config.info.lo_flags =
      LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | (part.read_only ? LO_FLAGS_READ_ONLY : 0);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) fail("find a free loop device");
    path_ = "/dev/loop" + std::to_string(number);
    device_ = openFile(path_, mode);
    if (ioctl(device_.get(), LOOP_CONFIGURE, &config) == 0) return;
    if (errno != EBUSY) fail("set up " + path_);
  }
  throw Error(ErrorKind::kInternal, "no loop device stays free");
}

}  // namespace hull::guest
