#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "guest-init/server/server.h"
#include "guest-init/testing/host.h"

namespace hull::guest {

namespace {

// A loop device of one image.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& image)
      : path_(checkCommand({"losetup", "-f", "--show", image})) {
    while (!path_.empty() && path_.back() == '\n') path_.pop_back();
  }
  ~LoopDevice() { runCommand({"losetup", "-d", path_}); }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A tap nobody listens to stands for the machine's eth0; it lives as long as its descriptor, which
// is left open.
void makeNetworkCard() {
  const int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  ifreq request{};
  std::strcpy(request.ifr_name, "eth0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0) std::perror("make eth0");
}

// The cgroup hierarchy is one for the whole computer, whatever namespaces there are: the name must
// be this machine's alone, or tests that run side by side kill each other's containers.
std::string cgroupOf(const std::string& folder) {
  std::string name = folder;
  std::replace(name.begin(), name.end(), '/', '-');
  return folder + "/cgroup/hull-test" + name;
}

void removeCgroups(const std::string& path) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(path, none)) {
    if (entry.is_directory(none)) removeCgroups(entry.path());
  }
  rmdir(path.c_str());
}

// PID 1 of the machine.
[[noreturn]] void serveForever(const std::string& folder) {
  mount("proc", "/proc", "proc", 0, nullptr);
  signal(SIGPIPE, SIG_IGN);
  EventLoop loop;
  Fd control = listenUnix(folder + "/port-" + std::to_string(kControlPort));
  setNonBlocking(control.get());
  Fd stream = listenUnix(folder + "/port-" + std::to_string(kStreamPort));
  setNonBlocking(stream.get());
  {
    Server server(loop, Places{folder + "/state/hull", cgroupOf(folder)}, std::move(control),
                  std::move(stream), [&loop] { loop.stop(); });
    loop.run();
  }
  _exit(0);
}

// Owns the namespaces: starts PID 1 in them, ends it on SIGTERM, and takes the cgroups away when
// everything in the machine is dead.
[[noreturn]] void keepMachine(const std::string& folder) {
  sigset_t awaited, before;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGCHLD);
  sigprocmask(SIG_BLOCK, &awaited, &before);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) < 0) _exit(1);
  mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  mount("tmpfs", (folder + "/state").c_str(), "tmpfs", 0, nullptr);
  mount("cgroup2", (folder + "/cgroup").c_str(), "cgroup2", 0, nullptr);
  mkdir(cgroupOf(folder).c_str(), 0755);
  makeNetworkCard();
  const pid_t inner = fork();
  if (inner == 0) {
    // Dies with its parent, and everything in its PID namespace with it.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    serveForever(folder);
  }
  int status = 0;
  while (waitpid(inner, &status, WNOHANG) == 0) {
    int caught = 0;
    sigwait(&awaited, &caught);
    if (caught == SIGTERM) kill(inner, SIGKILL);
  }
  removeCgroups(cgroupOf(folder));
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

class NativeHost final : public TestHost {
 public:
  explicit NativeHost(const TestDisks& disks)
      : folder_(disks.folder), root_(disks.root), writable_(disks.writable) {
    for (const char* name : {"/state", "/cgroup"}) makeDirectories(folder_ + name);
    start();
  }
  ~NativeHost() override {
    if (server_ > 0) {
      kill(server_, SIGTERM);
      waitpid(server_, nullptr, 0);
    }
  }
  Fd connect(uint32_t port) override {
    return connectUnix(folder_ + "/port-" + std::to_string(port));
  }
  std::string rootDisk() const override { return root_.path(); }
  std::string writableDisk() const override { return writable_.path(); }
  std::string waitForPowerOff() override {
    int status = 0;
    waitpid(server_, &status, 0);
    server_ = -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "poweroff" : "crash";
  }

 private:
  void start() {
    server_ = fork();
    if (server_ < 0) throw sysError("start test server");
    if (server_ == 0) keepMachine(folder_);
    // The stream port is opened last; it is there before it listens.
    while (!answers(kStreamPort)) {
      int status = 0;
      if (waitpid(server_, &status, WNOHANG) != 0) {
        throw Error(ErrorKind::kInternal, "start test server: it died");
      }
      usleep(1000);
    }
  }
  bool answers(uint32_t port) {
    try {
      connect(port);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

  std::string folder_;
  LoopDevice root_;
  LoopDevice writable_;
  pid_t server_ = -1;
};

}  // namespace

std::string whyNoNativeHost() {
  if (geteuid() != 0) return "needs root";
  for (const char* path : {"/bin/busybox", "/dev/loop-control", "/dev/net/tun"}) {
    if (access(path, F_OK) < 0) return std::string("needs ") + path;
  }
  const pid_t probe = fork();
  if (probe == 0) _exit(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) == 0 ? 0 : 1);
  int status = 0;
  waitpid(probe, &status, 0);
  return status == 0 ? "" : "needs namespaces";
}

std::unique_ptr<TestHost> makeNativeHost(const TestDisks& disks) {
  return std::make_unique<NativeHost>(disks);
}

}  // namespace hull::guest
