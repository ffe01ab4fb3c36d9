#include "base/subprocess.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/error.h"

extern char** environ;

namespace hull {

namespace {

std::vector<char*> pointersTo(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const auto& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Everything below runs between fork and exec: async-signal-safe calls only, no allocation.

// Lifts every source above the targets first, so that no dup2 overwrites one still needed.
bool placeDescriptors(std::span<std::pair<int, int>> wanted, bool inherit_stdio) {
  // Whatever else is open, inherited strangers included, ends at exec; dup2 below clears the mark.
  if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0) return false;
  int ceiling = 3;
  for (const auto& [from, to] : wanted) ceiling = std::max(ceiling, to + 1);
  for (auto& [from, to] : wanted) {
    from = fcntl(from, F_DUPFD_CLOEXEC, ceiling);
    if (from < 0) return false;
  }
  if (!inherit_stdio) {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return false;
    for (int target = 0; target < 3; ++target) {
      if (dup2(null, target) < 0) return false;
    }
  }
  for (const auto& [from, to] : wanted) {
    if (dup2(from, to) < 0) return false;
  }
  return true;
}

void resetSignals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
}

// fork(2), into a PID namespace of its own if wanted. The C library's fork() knows no flags; what
// it does beside the call (its own locks, handlers) the child has no use for before it runs a
// program.
pid_t forkInto(bool new_pid_namespace) {
  if (!new_pid_namespace) return fork();
  return static_cast<pid_t>(
      syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, 0));
}

[[noreturn]] void reportAndExit(int report) {
  const int cause = errno;
  [[maybe_unused]] const ssize_t put = ::write(report, &cause, sizeof cause);
  _exit(127);
}

int statusOf(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

}  // namespace

Subprocess::Subprocess(const SubprocessOptions& options) {
  if (options.arguments.empty())
    throw Error(ErrorKind::kInvalidArgument, "start process: no program");
  const auto arguments = pointersTo(options.arguments);
  std::vector<char*> environment;
  if (options.environment) environment = pointersTo(*options.environment);
  auto descriptors = options.descriptors;
  FdPair report = makePipe();

  pid_ = forkInto(options.new_pid_namespace);
  if (pid_ < 0) throw sysError("start " + options.arguments[0]);
  if (pid_ == 0) {
    if (options.new_session) setsid();
    resetSignals();
    // The report pipe must not sit where a descriptor will be placed.
    const int report_fd = fcntl(report.second.get(), F_DUPFD_CLOEXEC, 1000);
    const int report_to = report_fd < 0 ? report.second.get() : report_fd;
    if (!placeDescriptors(descriptors, options.inherit_stdio)) reportAndExit(report_to);
    if (!options.working_directory.empty() && chdir(options.working_directory.c_str()) < 0) {
      reportAndExit(report_to);
    }
    if (options.environment) environ = environment.data();
    execvp(arguments[0], arguments.data());
    reportAndExit(report_to);
  }
  report.second.reset();
  int cause = 0;
  const bool failed =
      readFull(report.first.get(), std::as_writable_bytes(std::span(&cause, 1))) != 0;
  if (failed) {
    waitpid(pid_, nullptr, 0);
    throw sysError("start " + options.arguments[0], cause);
  }
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
}

Subprocess::~Subprocess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  wait();
}

int Subprocess::wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) throw sysError("wait for process " + std::to_string(pid_));
  }
  pid_ = -1;
  return statusOf(status);
}

void Subprocess::kill(int signal_number) {
  if (pid_ > 0) ::kill(pid_, signal_number);
}

CommandResult runCommand(const std::vector<std::string>& arguments, std::string_view input) {
  FdPair in = makePipe(), out = makePipe(), err = makePipe();
  SubprocessOptions options;
  options.arguments = arguments;
  options.descriptors = {{in.first.get(), 0}, {out.second.get(), 1}, {err.second.get(), 2}};
  Subprocess child(options);
  in.first.reset();
  out.second.reset();
  err.second.reset();
  setNonBlocking(in.second.get());

  CommandResult result;
  std::array<std::byte, 65536> buffer;
  const auto drain = [&](Fd& from, std::string& into) {
    const size_t got = readSome(from.get(), buffer);
    if (got == 0) from.reset();
    const size_t room = kMaxCommandOutputBytes - into.size();
    into.append(reinterpret_cast<const char*>(buffer.data()), std::min(got, room));
  };
  while (out.first.valid() || err.first.valid() || in.second.valid()) {
    if (in.second.valid() && input.empty()) in.second.reset();
    std::array<pollfd, 3> polled{{{in.second.get(), POLLOUT, 0},
                                  {out.first.get(), POLLIN, 0},
                                  {err.first.get(), POLLIN, 0}}};
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) throw sysError("poll");
    if (polled[0].revents != 0) {
      const ssize_t put = ::write(in.second.get(), input.data(), input.size());
      if (put > 0) input.remove_prefix(static_cast<size_t>(put));
      if (put < 0 && errno != EAGAIN && errno != EINTR) input = {};  // the child stopped reading
    }
    if (polled[1].revents != 0) drain(out.first, result.output);
    if (polled[2].revents != 0) drain(err.first, result.errors);
  }
  result.status = child.wait();
  return result;
}

std::string checkCommand(const std::vector<std::string>& arguments, std::string_view input) {
  CommandResult result = runCommand(arguments, input);
  if (result.status == 0) return std::move(result.output);
  std::string line;
  for (const auto& argument : arguments) line += (line.empty() ? "" : " ") + argument;
  throw Error(ErrorKind::kInternal, "run " + line + ": exit status " +
                                        std::to_string(result.status) + ": " + result.errors);
}

}  // namespace hull
