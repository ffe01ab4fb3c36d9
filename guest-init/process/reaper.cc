#include "guest-init/process/reaper.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace hull::guest {

namespace {

constexpr int kKilledBase = 128;

// Those that tell of the reaper itself, not of what somebody wants of the command.
void keepOwn(sigset_t& set) {
  for (const int number :
       {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU}) {
    sigdelset(&set, number);
  }
}

// Reaps what has ended; exits when the command is among it.
void reapAll(pid_t command) {
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    if (pid != command) continue;
    _exit(WIFSIGNALED(status) ? kKilledBase + WTERMSIG(status) : WEXITSTATUS(status));
  }
}

[[noreturn]] void reap(pid_t command, const sigset_t& watched) {
  for (;;) {
    siginfo_t info{};
    const int number = sigwaitinfo(&watched, &info);
    if (number < 0) continue;  // EINTR
    if (number == SIGCHLD) {
      reapAll(command);
    } else {
      kill(command, number);
    }
  }
}

}  // namespace

void becomeReaper(int status, bool terminal) {
  sigset_t watched, before;
  sigfillset(&watched);
  keepOwn(watched);
  sigprocmask(SIG_SETMASK, &watched, &before);
  const pid_t command = fork();
  if (command < 0) throw sysError("start the command below its init process");
  if (command == 0) {
    // A process group of its own in the foreground, so that the terminal's signals reach it.
    setpgid(0, 0);
    signal(SIGTTOU, SIG_IGN);
    if (terminal) tcsetpgrp(STDIN_FILENO, getpid());
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return;
  }
  close(status);
  // The command's output ends with the command, and nobody waits for the reaper's copies.
  for (int fd = 0; fd <= 2; ++fd) close(fd);
  prctl(PR_SET_NAME, "hull-reaper", 0, 0, 0);
  reap(command, watched);
}

}  // namespace hull::guest
