#include "cli/client/session.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>

#include "base/error.h"

namespace hull::cli {

namespace {

constexpr size_t kFrameHeaderBytes = 8;

class RawTerminal {
 public:
  RawTerminal() {
    if (tcgetattr(STDIN_FILENO, &saved_) < 0) return;
    termios raw = saved_;
    cfmakeraw(&raw);
    active_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  ~RawTerminal() {
    if (active_) tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  termios saved_{};
  bool active_ = false;
};

// Signals arrive as readable descriptors while this lives; the old mask returns afterwards.
class SignalQueue {
 public:
  explicit SignalQueue(bool forward) {
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGWINCH);
    if (forward) {
      for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) {
        sigaddset(&wanted, number);
      }
    }
    sigprocmask(SIG_BLOCK, &wanted, &old_);
    fd_ = Fd(signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalQueue() { sigprocmask(SIG_SETMASK, &old_, nullptr); }
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;

  int fd() const { return fd_.get(); }
  std::optional<int> next() const {
    signalfd_siginfo info;
    if (::read(fd_.get(), &info, sizeof info) != sizeof info) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
  }

 private:
  sigset_t old_{};
  Fd fd_;
};

class Session {
 public:
  Session(Hijacked connection, const SessionOptions& options)
      : socket_(std::move(connection.socket)),
        options_(options),
        detach_keys_(options.detach_keys),
        splitter_([](int stream, std::string_view data) {
          writeFull(stream == 2 ? STDERR_FILENO : STDOUT_FILENO, data);
        }),
        signals_(static_cast<bool>(options.forward_signal)) {
    if (options_.terminal && options_.send_input && isatty(STDIN_FILENO)) raw_.emplace();
    resize();
    output(connection.already_read);
  }

  SessionEnd run() {
    bool input_open = options_.send_input;
    for (;;) {
      std::array<pollfd, 3> polled{{{socket_.get(), POLLIN, 0},
                                    {input_open ? STDIN_FILENO : -1, POLLIN, 0},
                                    {signals_.fd(), POLLIN, 0}}};
      if (poll(polled.data(), polled.size(), -1) < 0) {
        if (errno == EINTR) continue;
        throw sysError("wait for the container");
      }
      if (polled[2].revents != 0) handleSignals();
      if (polled[0].revents != 0 && !receive()) return SessionEnd::kStreamClosed;
      if (polled[1].revents != 0) {
        if (!send(input_open)) return SessionEnd::kDetached;
      }
    }
  }

 private:
  bool receive() {
    const ssize_t got = ::read(socket_.get(), buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) return true;
    if (got <= 0) return false;
    output({buffer_.data(), static_cast<size_t>(got)});
    return true;
  }

  void output(std::string_view data) {
    if (options_.terminal) {
      writeFull(STDOUT_FILENO, data);
    } else {
      splitter_.feed(data);
    }
  }

  // False when the user typed the detach keys.
  bool send(bool& input_open) {
    const ssize_t got = ::read(STDIN_FILENO, buffer_.data(), buffer_.size());
    if (got < 0 && errno == EINTR) return true;
    if (got <= 0) {
      input_open = false;
      ::shutdown(socket_.get(), SHUT_WR);
      return true;
    }
    std::string data(buffer_.data(), static_cast<size_t>(got));
    if (raw_ && detach_keys_.feed(std::string(data), data)) return false;
    for (std::string_view rest = data; !rest.empty();) {
      const ssize_t put = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {  // the process is gone or closed its input: its output still matters
        input_open = false;
        break;
      }
      rest.remove_prefix(static_cast<size_t>(put));
    }
    return true;
  }

  void handleSignals() {
    while (const auto number = signals_.next()) {
      if (*number == SIGWINCH) {
        resize();
      } else if (options_.forward_signal) {
        options_.forward_signal(*number);
      }
    }
  }

  void resize() {
    winsize size{};
    if (options_.terminal && options_.resize && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
        size.ws_row != 0) {
      options_.resize(size.ws_row, size.ws_col);
    }
  }

  Fd socket_;
  const SessionOptions& options_;
  DetachKeys detach_keys_;
  FrameSplitter splitter_;
  SignalQueue signals_;
  std::optional<RawTerminal> raw_;
  std::array<char, 65536> buffer_{};
};

}  // namespace

void FrameSplitter::feed(std::string_view data) {
  while (!data.empty()) {
    if (left_ == 0) {
      const size_t take = std::min(kFrameHeaderBytes - header_.size(), data.size());
      header_.append(data.substr(0, take));
      data.remove_prefix(take);
      if (header_.size() < kFrameHeaderBytes) return;
      for (size_t i = 4; i < kFrameHeaderBytes; ++i) {
        left_ = left_ << 8 | static_cast<unsigned char>(header_[i]);
      }
    }
    const size_t take = std::min<size_t>(left_, data.size());
    if (take != 0) output_(header_[0], data.substr(0, take));
    data.remove_prefix(take);
    left_ -= static_cast<uint32_t>(take);
    if (left_ == 0) header_.clear();
  }
}

SessionEnd runSession(Hijacked connection, const SessionOptions& options) {
  return Session(std::move(connection), options).run();
}

}  // namespace hull::cli
