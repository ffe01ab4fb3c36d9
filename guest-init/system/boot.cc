#include "guest-init/system/boot.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "base/error.h"
#include "guest-init/system/files.h"
#include "guest-init/system/log.h"

namespace hull::guest {

namespace {

constexpr int kListenBacklog = 128;
// A process in the root counts as much as a group of 100. Containers have all of what hull-init and
// the kernel leave, and no number of their processes keeps these from answering.
constexpr const char* kContainersCpuWeight = "10";

void mountAt(const char* type, const std::string& target, unsigned long flags,
             const char* data = "") {
  makeDirectoryPath(target);
  if (mount(type, target.c_str(), type, flags, data) < 0) throw sysError("mount " + target);
}

}  // namespace

void mountKernelFileSystems() {
  // The initramfs cannot be pivoted away from (pivot_root(2)); a tmpfs over it can.
  const std::string root = "/newroot";
  mountAt("tmpfs", root, MS_NOSUID, "mode=0755,size=64m");
  constexpr unsigned long kPlain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
  mountAt("devtmpfs", root + "/dev", MS_NOSUID, "mode=0755");
  mountAt("proc", root + "/proc", kPlain);
  mountAt("sysfs", root + "/sys", kPlain);
  mountAt("cgroup2", root + "/sys/fs/cgroup", kPlain);
  mountAt("devpts", root + "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
  mountAt("tmpfs", root + "/run", MS_NOSUID | MS_NODEV, "mode=0755");
  if (chdir(root.c_str()) < 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) < 0 ||
      chroot(".") < 0 || chdir("/") < 0) {
    throw sysError("enter the root tmpfs");
  }
}

void prepareCgroups() {
  makeDirectoryPath(kContainersCgroup);
  // Of the parent's children, in two places: the kernel's threads and hull-init stay in the root.
  for (const std::string& group : {std::string("/sys/fs/cgroup"), std::string(kContainersCgroup)}) {
    // One write each: a controller this kernel lacks must not keep the others off.
    for (const char* controller : {"+pids", "+memory", "+cpu", "+io", "+cpuset"}) {
      writeControl(group + "/cgroup.subtree_control", controller);
    }
  }
  writeControl(std::string(kContainersCgroup) + "/cpu.weight", kContainersCpuWeight);
}

Fd listenVsock(uint32_t port) {
  Fd listener(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  if (!listener ||
      bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      listen(listener.get(), kListenBacklog) < 0) {
    throw sysError("listen on vsock port " + std::to_string(port));
  }
  return listener;
}

void writeExitPort(vmm::ExitPortValue value) {
  if (ioperm(vmm::kExitPort, 1, 1) < 0) return note(sysError("open the exit port").what());
  outb(static_cast<unsigned char>(value), vmm::kExitPort);
  ioperm(vmm::kExitPort, 1, 0);
}

void powerOff() {
  sync();
  writeExitPort(vmm::ExitPortValue::kPowerOff);
  // Under another VMM the port means nothing.
  reboot(RB_POWER_OFF);
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}

}  // namespace hull::guest
