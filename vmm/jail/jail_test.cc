#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "vmm/jail/seccomp.h"

namespace hull::vmm {
namespace {

// The raw wait status of a child that runs `work` and then exits with 0.
int inChild(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

void filter(SeccompFilter::Kind kind) {
  const SeccompFilter rules(kind);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  rules.applyToThisThread();
}

// Without reportViolations() the signal has no handler.
bool killed(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

TEST(Jail, KnowsEveryDescriptorOfTheConfiguration) {
  VmConfig config;
  config.kernel_fd = 9;
  config.status_fd = 4;
  config.disks = {{"a", 1024, true, {{7, 0, 0, 512}, {7, 512, 512, 512}}},
                  {"b", 512, false, {{6, 0, 0, 512}}}};
  config.nets = {NetConfig{12, {}, 1500}, NetConfig{-1, {}, 1500, {}, {}, 13, {}}};
  config.vsock = VsockConfig{3, 11};
  EXPECT_EQ(descriptorsOf(config), (std::vector<int>{4, 6, 7, 9, 11, 12, 13}));
}

TEST(Jail, ClosesEveryOtherDescriptor) {
  const int status = inChild([] {
    const int kept = dup(2), closed = dup(2), far = dup2(2, 300);
    closeUnknownDescriptors({kept});
    if (fcntl(kept, F_GETFD) < 0) _exit(1);
    if (fcntl(closed, F_GETFD) >= 0 || fcntl(far, F_GETFD) >= 0) _exit(2);
    if (fcntl(0, F_GETFD) < 0 || fcntl(1, F_GETFD) < 0) _exit(3);
    char byte;
    if (read(0, &byte, 1) != 0) _exit(4);  // /dev/null
  });
  EXPECT_EQ(status, 0);
}

TEST(Seccomp, OrdinaryWorkGoesOn) {
  const int status = inChild([] {
    filter(SeccompFilter::Kind::kDevices);
    std::vector<char> memory(1 << 20, 'x');
    [[maybe_unused]] const ssize_t put = write(2, "", 0);
  });
  EXPECT_EQ(status, 0);
}

TEST(Seccomp, DevicesMayNotOpenFilesOrSockets) {
  EXPECT_TRUE(killed(inChild([] {
    filter(SeccompFilter::Kind::kDevices);
    open("/etc/passwd", O_RDONLY);
  })));
  EXPECT_TRUE(killed(inChild([] {
    filter(SeccompFilter::Kind::kDevices);
    socket(AF_INET, SOCK_STREAM, 0);
  })));
}

TEST(Seccomp, VcpusMayNotTouchDescriptorsLikeDevicesDo) {
  EXPECT_TRUE(killed(inChild([] {
    filter(SeccompFilter::Kind::kVcpu);
    shutdown(0, SHUT_RD);
  })));
}

TEST(Seccomp, NobodyMaySignalOthersOrStartPrograms) {
  for (const auto kind :
       {SeccompFilter::Kind::kDevices, SeccompFilter::Kind::kVcpu, SeccompFilter::Kind::kDiskIo}) {
    EXPECT_TRUE(killed(inChild([kind] {
      filter(kind);
      kill(1, 0);
    })));
    EXPECT_TRUE(killed(inChild([kind] {
      filter(kind);
      execl("/bin/true", "true", nullptr);
    })));
    EXPECT_TRUE(killed(inChild([kind] {
      filter(kind);
      fork();
    })));
  }
}

}  // namespace
}  // namespace hull::vmm
