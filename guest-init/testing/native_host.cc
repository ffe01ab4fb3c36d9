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

#include <cstdio>
#include <cstring>

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

[[noreturn]] void serveForever(const std::string& folder) {
  mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  mount("proc", "/proc", "proc", 0, nullptr);
  mount("tmpfs", (folder + "/state").c_str(), "tmpfs", 0, nullptr);
  mount("cgroup2", (folder + "/cgroup").c_str(), "cgroup2", 0, nullptr);
  const std::string cgroup = folder + "/cgroup/hull-test-" + folder.substr(folder.rfind('/') + 1);
  mkdir(cgroup.c_str(), 0755);
  signal(SIGPIPE, SIG_IGN);
  EventLoop loop;
  Fd control = listenUnix(folder + "/port-" + std::to_string(kControlPort));
  setNonBlocking(control.get());
  Fd stream = listenUnix(folder + "/port-" + std::to_string(kStreamPort));
  setNonBlocking(stream.get());
  {
    Server server(loop, Places{folder + "/state/hull", cgroup}, std::move(control),
                  std::move(stream), [&loop] { loop.stop(); });
    loop.run();
  }
  rmdir(cgroup.c_str());
  _exit(0);
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
      kill(server_, SIGKILL);
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
    if (server_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) < 0) _exit(1);
      makeNetworkCard();
      const pid_t inner = fork();
      if (inner == 0) {
        // Dies with its parent, and everything in its PID namespace with it.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serveForever(folder_);
      }
      int status = 0;
      waitpid(inner, &status, 0);
      _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    // The stream port is opened last.
    while (!fileExists(folder_ + "/port-" + std::to_string(kStreamPort))) {
      int status = 0;
      if (waitpid(server_, &status, WNOHANG) != 0) {
        throw Error(ErrorKind::kInternal, "start test server: it died");
      }
      usleep(1000);
    }
    usleep(1000);
  }

  std::string folder_;
  LoopDevice root_;
  LoopDevice writable_;
  pid_t server_ = -1;
};

}  // namespace

std::string whyNoNativeHost() {
  if (geteuid() != 0) return "needs root";
  for (const char* path : {"/bin/busybox", "/dev/loop-control"}) {
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
