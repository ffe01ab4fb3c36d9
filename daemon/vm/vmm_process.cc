#include "daemon/vm/vmm_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxPidFileBytes = 128;
constexpr size_t kMaxStatBytes = 4096;
constexpr int kHelperEndMs = 5000;

// proc(5): field 22 of /proc/PID/stat, in clock ticks since boot. The command name (field 2) may
// hold anything, so counting starts behind its last ')'.
std::optional<uint64_t> startTimeOf(pid_t pid) {
  std::string text;
  try {
    text = readFile("/proc/" + std::to_string(pid) + "/stat", kMaxStatBytes);
  } catch (const Error&) {
    return std::nullopt;
  }
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  uint64_t start = 0;
  if (!(fields >> start)) return std::nullopt;
  return start;
}

}  // namespace

VmmProcess VmmProcess::spawn(const SubprocessOptions& options, const std::string& directory,
                             const char* pid_file) {
  Subprocess child(options);
  const pid_t pid = child.pid();
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) throw sysError("watch process " + std::to_string(pid));
  // Renamed into place whole; not synced, because after a power failure there is no process.
  const std::string path = directory + "/" + pid_file, making = path + ".new";
  {
    const Fd file = openFile(making, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    writeFull(file.get(),
              std::to_string(pid) + " " + std::to_string(startTimeOf(pid).value_or(0)) + "\n");
  }
  if (::rename(making.c_str(), path.c_str()) < 0) throw sysError("write " + path);
  return VmmProcess(pid, std::move(pidfd), std::move(child));
}

std::optional<VmmProcess> VmmProcess::find(const std::string& directory, const char* pid_file) {
  const std::string path = directory + "/" + pid_file;
  if (!fileExists(path)) return std::nullopt;
  std::istringstream text(readFile(path, kMaxPidFileBytes));
  pid_t pid = 0;
  uint64_t start = 0;
  if (!(text >> pid >> start) || pid <= 0) return std::nullopt;
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  // Compared after opening: from here on the descriptor cannot come to mean another process.
  if (!pidfd || startTimeOf(pid) != start) return std::nullopt;
  VmmProcess found(pid, std::move(pidfd), std::nullopt);
  if (found.ended()) return std::nullopt;  // a zombie of somebody else's
  return found;
}

bool VmmProcess::ended() const {
  return waitEnded(0);
}

bool VmmProcess::waitEnded(int timeout_ms) const {
  pollfd polled{pidfd_.get(), POLLIN, 0};
  return poll(&polled, 1, timeout_ms) > 0;
}

void VmmProcess::kill(int signal_number) const {
  syscall(SYS_pidfd_send_signal, pidfd_.get(), signal_number, nullptr, 0);
}

std::optional<int> VmmProcess::reap() {
  if (!child_) return std::nullopt;
  const int status = child_->wait();
  child_.reset();
  return status;
}

void VmmProcess::abandon() {
  if (child_) child_->detach();
}

void endHelper(VmmProcess& helper, const char* what_it_does) {
  if (!helper.waitEnded(kHelperEndMs)) {
    log::warning("the process " + std::to_string(helper.pid()) + " that " + what_it_does +
                 " does not end with its virtual machine; it is killed");
    helper.kill(SIGKILL);
  }
  // What hangs in the kernel (a network file system) is left to it.
  if (helper.waitEnded(kHelperEndMs)) {
    helper.reap();
  } else {
    helper.abandon();
  }
}

void endStrayHelpers(const std::string& directory) {
  for (const char* pid_file : {kSharePidFile, kPasstPidFile}) {
    const auto helper = VmmProcess::find(directory, pid_file);
    if (!helper) continue;
    helper->kill(SIGKILL);
    helper->waitEnded(kHelperEndMs);
  }
}

uint32_t freeVmmUid(uint32_t base) {
  std::set<uint32_t> taken;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    struct stat info;
    if (::stat(entry.path().c_str(), &info) == 0) taken.insert(info.st_uid);
  }
  for (;;) {
    uint32_t number = 0;
    fillRandom(std::as_writable_bytes(std::span(&number, 1)));
    const uint32_t uid = base + number % kVmmUids;
    if (!taken.contains(uid)) return uid;
  }
}

}  // namespace hull::engine
