// PID 1 of the test guests: does what `task=` on the kernel command line says, reports on the
// console, and ends the VM. Static, no dependency but the C library.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "vmm/config/vm_config.h"

namespace {

using hull::vmm::ExitPortValue;
using hull::vmm::kExitPort;

constexpr size_t kBlockBytes = 4096;
constexpr unsigned kEchoPort = 1000;

void tell(ExitPortValue value) {
  outb(static_cast<uint8_t>(value), kExitPort);
}

[[noreturn]] void powerOff() {
  tell(ExitPortValue::kPowerOff);
  for (;;) pause();
}

#define CHECK_THAT(condition)                                                          \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::printf("FAILED line %d: %s (%s)\n", __LINE__, #condition, strerror(errno)); \
      powerOff();                                                                      \
    }                                                                                  \
  } while (false)

// The host has filled disk A like this, see boot_e2e.cc.
uint8_t patternAt(uint64_t offset) {
  return static_cast<uint8_t>((offset >> 12) * 7 + offset % 251);
}

void checkSegments(int disk, uint64_t hole_start, uint64_t hole_end, uint64_t size) {
  std::vector<uint8_t> block(kBlockBytes);
  for (uint64_t at = 0; at < size; at += kBlockBytes) {
    CHECK_THAT(pread(disk, block.data(), block.size(), static_cast<off_t>(at)) ==
               static_cast<ssize_t>(block.size()));
    const bool hole = at >= hole_start && at < hole_end;
    for (size_t i = 0; i < block.size(); ++i) {
      CHECK_THAT(block[i] == (hole ? 0 : patternAt(at + i)));
    }
  }
}

void testDisks() {
  uint64_t size = 0;
  const int a = open("/dev/vda", O_RDONLY);
  CHECK_THAT(a >= 0 && ioctl(a, BLKGETSIZE64, &size) == 0 && size == 3 << 20);
  int read_only = 0;
  CHECK_THAT(ioctl(a, BLKROGET, &read_only) == 0 && read_only == 1);
  checkSegments(a, 1 << 20, 2 << 20, size);

  const int b = open("/dev/vdb", O_RDWR | O_DIRECT);
  CHECK_THAT(b >= 0 && ioctl(b, BLKGETSIZE64, &size) == 0 && size == 8 << 20);
  auto* block = static_cast<uint8_t*>(aligned_alloc(kBlockBytes, kBlockBytes * 64));
  for (size_t i = 0; i < kBlockBytes * 64; ++i) block[i] = patternAt(i);
  for (int i = 0; i < 32; ++i) {
    CHECK_THAT(pwrite(b, block, kBlockBytes * 64, static_cast<off_t>(i) << 18) ==
               static_cast<ssize_t>(kBlockBytes * 64));
  }
  CHECK_THAT(fsync(b) == 0);
  uint64_t range[2] = {4 << 20, 1 << 20};
  CHECK_THAT(ioctl(b, BLKDISCARD, range) == 0);
  CHECK_THAT(pread(b, block, kBlockBytes, 4 << 20) == static_cast<ssize_t>(kBlockBytes));
  CHECK_THAT(block[1] == 0 && block[kBlockBytes - 1] == 0);
  char serial[32] = {};
  const int id = open("/sys/block/vdb/serial", O_RDONLY);
  CHECK_THAT(id >= 0 && read(id, serial, sizeof serial - 1) > 0 &&
             std::strncmp(serial, "disk-b", 6) == 0);
  std::printf("DISKS OK\n");
}

void echo(int connection) {
  std::vector<char> buffer(65536);
  for (;;) {
    const ssize_t got = read(connection, buffer.data(), buffer.size());
    if (got <= 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = write(connection, buffer.data() + done, static_cast<size_t>(got - done));
      if (put <= 0) break;
      done += put;
    }
  }
  shutdown(connection, SHUT_WR);
  close(connection);
}

// Serves until the host ends the VM.
void testVsock() {
  const int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_port = kEchoPort;
  address.svm_cid = VMADDR_CID_ANY;
  CHECK_THAT(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK_THAT(listen(listener, 512) == 0);
  tell(ExitPortValue::kReady);
  for (;;) {
    const int connection = accept(listener, nullptr, nullptr);
    if (connection >= 0) std::thread(echo, connection).detach();
  }
}

void testCpus() {
  char text[64] = {};
  const int online = open("/sys/devices/system/cpu/online", O_RDONLY);
  CHECK_THAT(online >= 0 && read(online, text, sizeof text - 1) > 0);
  std::printf("CPUS %s", text);
}

void testRandom() {
  char bytes[256];
  const int device = open("/dev/hwrng", O_RDONLY);
  CHECK_THAT(device >= 0);
  CHECK_THAT(read(device, bytes, sizeof bytes) > 0);
  std::printf("RANDOM OK\n");
}

void testMemory() {
  std::FILE* file = std::fopen("/proc/meminfo", "r");
  long kib = 0;
  CHECK_THAT(file != nullptr && std::fscanf(file, "MemTotal: %ld kB", &kib) == 1);
  std::printf("MEMORY %ld MIB\n", kib / 1024);
}

}  // namespace

int main() {
  CHECK_THAT(ioperm(kExitPort, 1, 1) == 0);
  mkdir("/dev", 0755);
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mount("dev", "/dev", "devtmpfs", 0, nullptr);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("sys", "/sys", "sysfs", 0, nullptr);
  const int console = open("/dev/console", O_WRONLY);
  if (console >= 0) dup2(console, STDOUT_FILENO);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const char* wanted = getenv("task");
  const std::string_view task = wanted != nullptr ? wanted : "";
  std::printf("TASK %s\n", wanted);
  if (task == "vsock") testVsock();
  tell(ExitPortValue::kReady);
  if (task == "disks") testDisks();
  if (task == "cpus") testCpus();
  if (task == "memory") testMemory();
  if (task == "random") testRandom();
  if (task == "kernel-poweroff") reboot(RB_POWER_OFF);
  if (task == "reset") reboot(RB_AUTOBOOT);
  if (task == "panic") return 1;  // the kernel panics when its init ends
  if (task == "sleep") {
    for (;;) pause();
  }
  powerOff();
}
