// The machine's end of exec.h: one object per running command.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "base/error.h"
#include "base/subprocess.h"
#include "machine/exec.h"

extern char** environ;

namespace hull::machine {

namespace {

class ExecSession final : public StreamEvents, public std::enable_shared_from_this<ExecSession> {
 public:
  ExecSession(EventLoop& loop, Mux& mux, uint32_t stream)
      : loop_(loop), mux_(mux), stream_(stream) {}

  void start(const ExecRequest& request) {
    FdPair in = makePipe(), out = makePipe(), err = makePipe();
    SubprocessOptions options;
    options.arguments = request.arguments;
    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
    environment.insert(environment.end(), request.environment.begin(), request.environment.end());
    options.environment = std::move(environment);
    options.working_directory =
        request.working_directory.empty() ? "/root" : request.working_directory;
    options.descriptors = {{in.first.get(), 0}, {out.second.get(), 1}, {err.second.get(), 2}};
    options.new_session = true;
    child_.emplace(options);
    input_ = std::move(in.second);
    outputs_[0].fd = std::move(out.first);
    outputs_[1].fd = std::move(err.first);
    outputs_[1].channel = ExecChannel::kErrors;
    setNonBlocking(input_.get());
    for (auto& output : outputs_) setNonBlocking(output.fd.get());
    loop_.add(child_->pidfd(), EPOLLIN, [self = shared_from_this()](uint32_t) { self->onExit(); });
    for (auto& output : outputs_) watch(output);
  }

  void onData(std::string_view bytes) override {
    if (!input_) return mux_.consumed(stream_, bytes.size());  // as if written to a closed pipe
    pending_.append(bytes);
    flushInput();
  }
  void onFin() override {
    input_ended_ = true;
    flushInput();
  }
  void onClosed(bool) override {
    const auto self = shared_from_this();
    if (child_) {
      ::kill(-child_->pid(), SIGKILL);
      loop_.remove(child_->pidfd());
      child_->wait();
      child_.reset();
    }
    closeAll();
  }
  void onWritable() override {
    const auto self = shared_from_this();
    for (auto& output : outputs_) watch(output);
    if (exit_status_) drainAfterExit();
  }

 private:
  struct Output {
    Fd fd;
    ExecChannel channel = ExecChannel::kOutput;
    bool watched = false;
  };

  void watch(Output& output) {
    if (output.watched || !output.fd || mux_.room(stream_) <= kExecHeaderBytes) return;
    output.watched = true;
    loop_.add(output.fd.get(), EPOLLIN,
              [self = shared_from_this(), &output](uint32_t) { self->readOutput(output); });
  }
  void unwatch(Output& output) {
    if (!output.watched) return;
    output.watched = false;
    loop_.remove(output.fd.get());
  }

  // True when bytes were read; otherwise there are none now, or the end, or no room.
  bool readOutput(Output& output) {
    const size_t room = mux_.room(stream_);
    if (room <= kExecHeaderBytes) {
      unwatch(output);
      return false;
    }
    std::array<char, 32 * 1024> buffer;
    const ssize_t got =
        ::read(output.fd.get(), buffer.data(), std::min(buffer.size(), room - kExecHeaderBytes));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got <= 0) {
      unwatch(output);
      output.fd.reset();
      return false;
    }
    std::string message;
    appendExecMessage(message, output.channel, {buffer.data(), static_cast<size_t>(got)});
    mux_.send(stream_, message);
    return true;
  }

  void onExit() {
    const auto self = shared_from_this();
    loop_.remove(child_->pidfd());
    exit_status_ = child_->wait();
    child_.reset();
    drainAfterExit();
  }

  // What the command wrote before its end goes out first; a process it left behind may hold the
  // pipes open for ever and is not waited for.
  void drainAfterExit() {
    for (auto& output : outputs_) {
      while (output.fd && readOutput(output)) {
      }
    }
    std::string message;
    const int32_t status = *exit_status_;
    appendExecMessage(message, ExecChannel::kExit,
                      {reinterpret_cast<const char*>(&status), sizeof status});
    if (mux_.room(stream_) < message.size()) return;  // onWritable comes here again
    mux_.send(stream_, message);
    mux_.close(stream_);
    closeAll();
  }

  void flushInput() {
    while (input_ && !pending_.empty()) {
      const ssize_t put = ::write(input_.get(), pending_.data(), pending_.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EAGAIN) return watchInput();
      const size_t done = put < 0 ? pending_.size() : static_cast<size_t>(put);
      if (put < 0) closeInput();  // the command reads no more
      pending_.erase(0, done);
      mux_.consumed(stream_, done);
    }
    if (input_ && input_watched_) {
      input_watched_ = false;
      loop_.remove(input_.get());
    }
    if (input_ended_) closeInput();
  }
  void watchInput() {
    if (input_watched_) return;
    input_watched_ = true;
    loop_.add(input_.get(), EPOLLOUT,
              [self = shared_from_this()](uint32_t) { self->flushInput(); });
  }
  void closeInput() {
    if (std::exchange(input_watched_, false)) loop_.remove(input_.get());
    input_.reset();
  }
  void closeAll() {
    closeInput();
    for (auto& output : outputs_) {
      unwatch(output);
      output.fd.reset();
    }
  }

  EventLoop& loop_;
  Mux& mux_;
  uint32_t stream_;
  std::optional<Subprocess> child_;
  Fd input_;
  std::string pending_;  // at most a window
  bool input_watched_ = false;
  bool input_ended_ = false;
  std::array<Output, 2> outputs_;
  std::optional<int> exit_status_;
};

// For a command that never ran: takes what still arrives.
class FailedSession final : public StreamEvents {
 public:
  void onData(std::string_view) override {}
  void onFin() override {}
  void onClosed(bool) override {}
  void onWritable() override {}
};

}  // namespace

std::shared_ptr<StreamEvents> serveExec(EventLoop& loop, Mux& mux, uint32_t stream,
                                        std::string_view request) {
  try {
    auto session = std::make_shared<ExecSession>(loop, mux, stream);
    session->start(decodeExecRequest(request));
    return session;
  } catch (const Error& error) {
    std::string message;
    appendExecMessage(message, ExecChannel::kFailure,
                      std::string_view(error.what()).substr(0, 1024));
    mux.send(stream, message);
    mux.close(stream);
    return std::make_shared<FailedSession>();
  }
}

}  // namespace hull::machine
