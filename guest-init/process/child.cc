#include "guest-init/process/child.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "guest-init/container/mounts.h"
#include "guest-init/process/account.h"
#include "guest-init/process/program.h"
#include "guest-init/process/reaper.h"
#include "guest-init/process/seccomp.h"
#include "guest-init/system/files.h"

namespace hull::guest {

namespace {

constexpr int kLastSignal = 64;
constexpr gid_t kTtyGroup = 5;
constexpr int kSetupFailedStatus = 127;  // nobody sees it: the status socket says why

void resetSignals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number <= kLastSignal; ++number) sigaction(number, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

void joinContainer(int main_pidfd) {
  if (setns(main_pidfd, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) < 0) {
    throw Error(ErrorKind::kConflict, "container is not running");
  }
}

// Docker shows a terminal both as the process's own pty and, to the main process, as /dev/console.
Fd openTerminal(const StartProcess& request, bool main, int status) {
  const Fd master = openFile("/dev/pts/ptmx", O_RDWR | O_NOCTTY);
  int unlocked = 0;
  if (ioctl(master.get(), TIOCSPTLCK, &unlocked) < 0) throw sysError("unlock terminal");
  unsigned number = 0;
  if (ioctl(master.get(), TIOCGPTN, &number) < 0) throw sysError("name terminal");
  if (request.rows != 0 && request.columns != 0) {
    winsize size{};
    size.ws_row = request.rows;
    size.ws_col = request.columns;
    ioctl(master.get(), TIOCSWINSZ, &size);
  }
  const std::string name = "/dev/pts/" + std::to_string(number);
  Fd slave = openFile(name, O_RDWR | O_NOCTTY);
  if (main) {
    writeSmallFile("/dev/console", "", 0600);
    if (mount(name.c_str(), "/dev/console", nullptr, MS_BIND, nullptr) < 0) {
      throw sysError("bind /dev/console");
    }
  }
  const std::byte mark{0};
  const int passed = master.get();
  sendWithFds(status, std::span(&mark, 1), std::span(&passed, 1));
  return slave;
}

void installStdio(const StartProcess& request, const ChildStdio& stdio, const Fd& terminal) {
  const int from[3] = {request.terminal ? terminal.get() : stdio.input,
                       request.terminal ? terminal.get() : stdio.output,
                       request.terminal ? terminal.get() : stdio.errors};
  // Above the targets first: a source may itself be number 0, 1 or 2.
  int moved[3];
  for (int i = 0; i < 3; ++i) {
    moved[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 10);
    if (moved[i] < 0) throw sysError("set up standard streams");
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(moved[i], i) < 0) throw sysError("set up standard streams");
    close(moved[i]);
  }
  if (request.terminal && ioctl(0, TIOCSCTTY, 0) < 0) throw sysError("take the terminal");
}

// So that a process that is not root can open /dev/stdout again.
void giveStdioTo(const Account& account, bool terminal) {
  for (int fd = 0; fd <= 2; ++fd) {
    struct stat info;
    if (fstat(fd, &info) < 0 || S_ISBLK(info.st_mode)) continue;
    const bool device = S_ISCHR(info.st_mode);
    if (device && !terminal) continue;  // /dev/null
    if (fchown(fd, account.uid, terminal ? kTtyGroup : account.gid) < 0) {
      throw sysError("hand over standard streams");
    }
  }
}

void enterWorkingDirectory(const std::string& path) {
  const std::string directory = path.empty() ? "/" : path;
  if (!directory.starts_with('/')) {
    throw Error(ErrorKind::kInvalidArgument,
                "working directory " + directory + ": path is not absolute");
  }
  try {
    makeDirectoryPath(directory);
    if (chdir(directory.c_str()) < 0) throw sysError("chdir " + directory);
  } catch (const Error& error) {
    throw Error(ErrorKind::kInvalidArgument,
                "chdir to cwd (\"" + directory + "\") failed: " + error.what());
  }
}

void setLimits(const StartProcess& request) {
  for (const Rlimit& limit : request.rlimits) {
    const rlimit value{limit.soft, limit.hard};
    if (setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) < 0) {
      throw sysError("set resource limit " + std::to_string(limit.resource));
    }
  }
}

// capset(2) of effective and permitted; inheritable and ambient stay empty, as Docker has it.
void setCapabilities(uint64_t mask) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int half = 0; half < 2; ++half) {
    data[half].effective = data[half].permitted = static_cast<uint32_t>(mask >> (32 * half));
  }
  if (syscall(SYS_capset, &header, data) < 0) throw sysError("set capabilities");
}

void becomeAccount(const Account& account, const StartProcess& request) {
  uint64_t known = 0;
  for (unsigned cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
    known |= uint64_t{1} << cap;
    if ((request.capabilities >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
      throw sysError("drop capability " + std::to_string(cap));
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (setgroups(account.groups.size(), account.groups.data()) < 0) throw sysError("set groups");
  if (setresgid(account.gid, account.gid, account.gid) < 0) throw sysError("set group");
  if (setresuid(account.uid, account.uid, account.uid) < 0) throw sysError("set user");
  if (account.uid == 0) setCapabilities(request.capabilities & known);
}

// As runc: without no_new_privs a filter takes CAP_SYS_ADMIN, so it must precede the loss of that;
// with it, it comes last, so that it need not allow what sets the process up.
void restrictCalls(const Account& account, const StartProcess& request) {
  const bool filtered = !request.seccomp.empty();
  if (filtered && !request.no_new_privileges) installSeccomp(request.seccomp);
  becomeAccount(account, request);
  if (request.no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
    throw sysError("set no_new_privs");
  }
  if (filtered && request.no_new_privileges) installSeccomp(request.seccomp);
}

std::vector<char*> pointersOf(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

[[noreturn]] void executeProgram(const StartProcess& request, const Account& account) {
  std::vector<std::string> environment = request.environment;
  const char* home = findVariable(environment, "HOME");
  if (!home || *home == '\0') environment.push_back("HOME=" + account.home);
  if (request.arguments.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "no command specified");
  }
  const std::string program = findProgram(request.arguments.front(), environment);
  execve(program.c_str(), pointersOf(request.arguments).data(), pointersOf(environment).data());
  const int cause = errno;
  const std::string what = "exec " + program;
  switch (cause) {
    case ENOENT:  // the interpreter of a script or the program loader
      throw Error(ErrorKind::kNotFound, what + ": no such file or directory");
    case EACCES:
    case EPERM:
      throw Error(ErrorKind::kForbidden, what + ": permission denied");
    case ENOEXEC:
      throw Error(ErrorKind::kForbidden, what + ": exec format error");
    default:
      throw Error(ErrorKind::kInternal, sysError(what, cause).what());
  }
}

[[noreturn]] void prepareAndExecute(const LaunchTarget& target, const StartProcess& request,
                                    const ChildStdio& stdio) {
  const bool main = target.main_pidfd < 0;
  resetSignals();
  umask(0022);
  setsid();
  if (main) {
    enterNewContainer(target.state, target.options, request.mounts);
  } else {
    joinContainer(target.main_pidfd);
  }
  Account account;
  try {
    writeControl("/proc/self/oom_score_adj", std::to_string(request.oom_score_adj));
    const Fd terminal = request.terminal ? openTerminal(request, main, stdio.status) : Fd();
    installStdio(request, stdio, terminal);
    account = resolveAccount(readSmallFile("/etc/passwd", kMaxAccountFileBytes),
                             readSmallFile("/etc/group", kMaxAccountFileBytes), request.user,
                             request.additional_groups);
    giveStdioTo(account, request.terminal);
    setLimits(request);
    enterWorkingDirectory(request.working_directory);
    restrictCalls(account, request);
    if (main && target.options.init) becomeReaper(stdio.status, request.terminal);
  } catch (const Error& error) {
    // Only a missing or forbidden program may look like one (exit codes 127 and 126).
    if (error.kind() == ErrorKind::kInvalidArgument) throw;
    throw Error(ErrorKind::kInternal, error.what());
  }
  executeProgram(request, account);
}

}  // namespace

void runChild(const LaunchTarget& target, const StartProcess& request, const ChildStdio& stdio) {
  uint16_t code = 0;
  std::string text;
  try {
    prepareAndExecute(target, request, stdio);
  } catch (const Error& error) {
    code = static_cast<uint16_t>(failureCodeOf(error.kind()));
    text = error.what();
  } catch (const std::exception& error) {
    text = error.what();
  }
  std::string message(sizeof code, '\0');
  std::memcpy(message.data(), &code, sizeof code);
  message += text.substr(0, kMaxStatusBytes - sizeof code);
  send(stdio.status, message.data(), message.size(), MSG_NOSIGNAL);
  _exit(kSetupFailedStatus);
}

}  // namespace hull::guest
