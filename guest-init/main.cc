// hull-init: PID 1 of every VM. One thread, one event loop.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <exception>

#include "base/event_loop.h"
#include "guest-init/server/server.h"
#include "guest-init/system/boot.h"
#include "guest-init/system/files.h"
#include "guest-init/system/log.h"
#include "guest-init/system/network.h"

namespace {

using namespace hull;
using namespace hull::guest;

constexpr rlim_t kOpenFiles = 65536;  // streams and processes of all containers

// The kernel may have found no console to open for us, and descriptors 0 to 2 must not become
// something else.
void ensureStandardStreams() {
  while (true) {
    const int fd = open("/dev/null", O_RDWR);
    if (fd < 0) return;
    if (fd > 2) {
      close(fd);
      return;
    }
  }
}

void serve() {
  mountKernelFileSystems();
  ensureStandardStreams();
  prepareCgroups();
  writeControl("/proc/self/oom_score_adj", "-1000");
  const rlimit files{kOpenFiles, kOpenFiles};
  setrlimit(RLIMIT_NOFILE, &files);
  EventLoop loop;
  Places places;
  places.cgroups = kContainersCgroup;
  Server server(loop, std::move(places), listenVsock(kControlPort), listenVsock(kStreamPort),
                [] { powerOff(); });
  writeExitPort(vmm::ExitPortValue::kReady);
  // Not needed to be reached over vsock, so not before it.
  bringUpLoopback();
  loop.run();
}

}  // namespace

int main() {
  signal(SIGPIPE, SIG_IGN);
  try {
    serve();
  } catch (const std::exception& error) {
    note(std::string("fatal: ") + error.what());
  }
  writeExitPort(vmm::ExitPortValue::kPanic);
  powerOff();
}
