#include "daemon/testing/local_process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine::testing {

namespace {

std::string findProgram(const std::string& name, const std::vector<std::string>& environment) {
  const auto usable = [&](const std::string& path) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return false;
    if (S_ISDIR(status.st_mode)) {
      throw Error(ErrorKind::kForbidden, "exec: \"" + name + "\": is a directory");
    }
    if ((status.st_mode & 0111) == 0) {
      throw Error(ErrorKind::kForbidden, "exec: \"" + name + "\": permission denied");
    }
    return true;
  };
  if (name.find('/') != std::string::npos) {
    if (usable(name)) return name;
    throw Error(ErrorKind::kNotFound, "exec: \"" + name + "\": no such file or directory");
  }
  for (const std::string& variable : environment) {
    if (!variable.starts_with("PATH=")) continue;
    std::string_view rest = std::string_view(variable).substr(5);
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(':'), rest.size());
      const std::string path = std::string(rest.substr(0, end)) + "/" + name;
      if (usable(path)) return path;
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  throw Error(ErrorKind::kNotFound, "exec: \"" + name + "\": executable file not found in $PATH");
}

}  // namespace

LocalProcess::LocalProcess(const guest::StartProcess& start, const std::string& root)
    : terminal_(start.terminal) {
  SubprocessOptions options;
  options.arguments = start.arguments;
  options.arguments.at(0) = findProgram(start.arguments.at(0), start.environment);
  options.environment = start.environment;
  options.working_directory = root + start.working_directory;
  makeDirectories(options.working_directory);
  Fd child_in, child_out, child_err;
  if (terminal_) {
    int master = -1, slave = -1;
    if (openpty(&master, &slave, nullptr, nullptr, nullptr) != 0) throw sysError("open terminal");
    terminal_fd_ = Fd(master);
    child_in = Fd(slave);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    if (start.rows > 0) resize(start.rows, start.columns);
    options.descriptors = {{slave, 0}, {slave, 1}, {slave, 2}};
    options.arguments.insert(options.arguments.begin(), {"setsid", "-c"});
    stdout_ = terminal_fd_.duplicate();
    stdin_ = terminal_fd_.duplicate();
    err_.ended = true;
  } else {
    FdPair out = makePipe(), err = makePipe();
    stdout_ = std::move(out.first);
    stderr_ = std::move(err.first);
    child_out = std::move(out.second);
    child_err = std::move(err.second);
    options.descriptors = {{child_out.get(), 1}, {child_err.get(), 2}};
    if (start.open_stdin) {
      FdPair in = makePipe();
      child_in = std::move(in.first);
      stdin_ = std::move(in.second);
      options.descriptors.emplace_back(child_in.get(), 0);
    }
    options.new_session = true;
  }
  process_.emplace(options);
  pid_ = process_->pid();
}

void LocalProcess::begin(std::function<void(int)> exited) {
  exited_ = std::move(exited);
  const auto self = shared_from_this();
  std::thread([self] { self->read(std::move(self->stdout_), self->out_); }).detach();
  if (!terminal_) {
    std::thread([self] { self->read(std::move(self->stderr_), self->err_); }).detach();
  }
  std::thread([self] { self->wait(); }).detach();
}

void LocalProcess::read(Fd from, Output& output) {
  std::array<std::byte, 65536> buffer;
  for (;;) {
    size_t got = 0;
    try {
      got = readSome(from.get(), buffer);
    } catch (const Error&) {
      // A terminal without processes: EIO.
    }
    const std::lock_guard lock(mutex_);
    output.bytes.append(reinterpret_cast<const char*>(buffer.data()), got);
    if (got == 0) output.ended = true;
    changed_.notify_all();
    if (got == 0) return;
  }
}

void LocalProcess::wait() {
  const int code = process_->wait();
  ::kill(-pid_, SIGKILL);  // as the end of a container's first process ends all others
  {
    const std::lock_guard lock(mutex_);
    exit_code_ = code;
    stdin_.reset();
    changed_.notify_all();
  }
  // Once: what it holds is the machine, which holds this process.
  std::exchange(exited_, nullptr)(code);
}

std::optional<int> LocalProcess::exitCode() const {
  const std::lock_guard lock(mutex_);
  return exit_code_;
}

void LocalProcess::signal(int number, bool whole_group) {
  const std::lock_guard lock(mutex_);
  if (exit_code_) throw Error(ErrorKind::kNotFound, "no such process");
  ::kill(whole_group || number == SIGKILL ? -pid_ : pid_, number);
}

void LocalProcess::resize(uint16_t rows, uint16_t columns) {
  if (!terminal_fd_) throw Error(ErrorKind::kInvalidArgument, "the process has no terminal");
  const winsize size{rows, columns, 0, 0};
  ioctl(terminal_fd_.get(), TIOCSWINSZ, &size);
}

Fd LocalProcess::openOutput(bool standard_error, uint64_t offset) {
  FdPair pair = makeSocketPair(SOCK_STREAM);
  std::thread([self = shared_from_this(), standard_error, offset,
               to = std::move(pair.second)]() mutable {
    try {
      self->send(std::move(to), standard_error ? self->err_ : self->out_, offset);
    } catch (const Error&) {
      // The engine closed it.
    }
  }).detach();
  return std::move(pair.first);
}

void LocalProcess::send(Fd to, Output& output, uint64_t offset) {
  for (;;) {
    std::string piece;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return output.bytes.size() > offset || output.ended; });
      if (output.bytes.size() <= offset) break;
      piece = output.bytes.substr(offset);
    }
    writeFull(to.get(), piece);
    offset += piece.size();
  }
  shutdown(to.get(), SHUT_WR);
  std::array<std::byte, 256> acknowledgements;
  while (readSome(to.get(), acknowledgements) > 0) {
  }
}

Fd LocalProcess::openInput() {
  FdPair pair = makeSocketPair(SOCK_STREAM);
  std::thread([self = shared_from_this(), from = std::move(pair.second)]() mutable {
    try {
      self->feed(std::move(from));
    } catch (const Error&) {
      // The process or the engine closed its end.
    }
  }).detach();
  return std::move(pair.first);
}

void LocalProcess::feed(Fd from) {
  std::array<std::byte, 65536> buffer;
  for (;;) {
    pollfd waiting{from.get(), POLLIN, 0};
    if (poll(&waiting, 1, 100) == 0) {
      if (exitCode()) return;  // the guest closes it with the process
      continue;
    }
    const size_t got = readSome(from.get(), buffer);
    if (got == 0) break;
    Fd to;
    {
      const std::lock_guard lock(mutex_);
      if (!stdin_) return;
      to = stdin_.duplicate();
    }
    writeFull(to.get(), std::span(buffer).first(got));
  }
  // Half-closed is the end of input; closed altogether only detaches.
  pollfd state{from.get(), 0, 0};
  if (poll(&state, 1, 0) > 0 && (state.revents & POLLHUP)) return;
  const std::lock_guard lock(mutex_);
  if (terminal_ && stdin_) writeFull(stdin_.get(), "\x04");
  stdin_.reset();
}

}  // namespace hull::engine::testing
