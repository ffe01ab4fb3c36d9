// hull-vmm --config-fd N: runs one VM and says how it ended. See config/vm_config.h.
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <time.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/stream.h"
#include "vmm/config/vm_config.h"
#include "vmm/jail/jail.h"
#include "vmm/jail/seccomp.h"
#include "vmm/jail/violation.h"
#include "vmm/machine.h"

namespace {

using namespace hull;
using namespace hull::vmm;

constexpr int kUsageStatus = 2;
constexpr size_t kMaxConfigBytes = 4 << 20;

// vm_config.h, ExitReason.
int statusOf(ExitReason reason) {
  switch (reason) {
    case ExitReason::kPowerOff:
    case ExitReason::kReset:
      return 0;
    case ExitReason::kPanic:
      return 10;
    case ExitReason::kTripleFault:
      return 11;
    case ExitReason::kTerminated:
      return 12;
    case ExitReason::kError:
      break;
  }
  return 13;
}

int configFd(int argc, char** argv) {
  if (argc != 3 || std::string_view(argv[1]) != "--config-fd") return -1;
  int fd = -1;
  const char* end = argv[2] + std::strlen(argv[2]);
  const auto [stop, error] = std::from_chars(argv[2], end, fd);
  return error == std::errc() && stop == end ? fd : -1;
}

VmConfig readConfig(int fd) {
  const Fd owned(fd);
  FdSource source(owned.get());
  return parseVmConfig(readAll(source, kMaxConfigBytes, "vm config"));
}

void report(int status_fd, const MachineEnd& end) {
  const std::string_view reason = toString(end.reason);
  if (end.reason == ExitReason::kError) {
    log::error(end.detail);
  } else {
    log::debug(fmt::format("{}: {}", reason, end.detail));
  }
  if (status_fd < 0) return;
  const nlohmann::json object{{"reason", reason}, {"detail", end.detail}};
  try {
    writeFull(status_fd,
              object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } catch (const Error& error) {
    log::error(fmt::format("write the status: {}", error.what()));
  }
}

MachineEnd runMachine(VmConfig config, Machine::Clock::time_point started) {
  const uint32_t uid = config.uid;
  const uint32_t gid = config.gid;
  const int status_fd = config.status_fd;
  closeUnknownDescriptors(descriptorsOf(config));
  Machine machine(std::move(config), started);
  const ThreadFilters filters{SeccompFilter(SeccompFilter::Kind::kDevices),
                              SeccompFilter(SeccompFilter::Kind::kVcpu),
                              SeccompFilter(SeccompFilter::Kind::kDiskIo)};
  reportViolations(status_fd);
  enterJail(uid, gid);
  return machine.run(filters);
}

// The C library opens files of its own accord: the time zone at the first log line, the number of
// CPUs and /proc/sys/vm when threads get memory pools of their own. All of that happens here, or
// never: behind the filter it would end the process.
void settleLibrary() {
  tzset();
  mallopt(M_ARENA_MAX, 1);
}

}  // namespace

int main(int argc, char** argv) {
  const auto started = Machine::Clock::now();
  settleLibrary();
  Machine::holdSignals();
  signal(SIGPIPE, SIG_IGN);  // a reader of the console who leaves is no reason to end
  log::setPart("hull-vmm");
  const int fd = configFd(argc, argv);
  if (fd < 0) {
    std::fputs("usage: hull-vmm --config-fd N\n", stderr);
    return kUsageStatus;
  }
  int status_fd = -1;
  MachineEnd end;
  try {
    VmConfig config = readConfig(fd);
    status_fd = config.status_fd;
    end = runMachine(std::move(config), started);
  } catch (const std::exception& error) {
    end = {ExitReason::kError, error.what()};
  }
  report(status_fd, end);
  return statusOf(end.reason);
}
