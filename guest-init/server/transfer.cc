#include "guest-init/server/transfer.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "guest-init/process/launch.h"
#include "guest-init/server/chunks.h"

namespace hull::guest {

namespace {

constexpr size_t kMaxErrorBytes = 4096;
constexpr int kSocketNumber = 3;
constexpr int kResultNumber = 4;

// Exit statuses of a transfer's child.
constexpr int kSucceeded = 0;
constexpr int kFailed = 1;
constexpr int kRefused = 2;  // the Failure frame has been sent, no end is due

std::string textOf(const std::exception& error) {
  const std::string text = error.what();
  return text.empty() ? "failed" : text.substr(0, kMaxErrorBytes);
}

// The child's side of one transfer.
class Child {
 public:
  Child(const Frame& request, int socket) : request_(request), socket_(socket) {}

  // Returns the error, empty after success.
  template <typename Work>
  std::string run(Work&& work) {
    try {
      work([this] { answer(Ok{}); });
      return {};
    } catch (const Error& error) {
      return failed(error, failureCodeOf(error.kind()));
    } catch (const std::exception& error) {
      return failed(error, FailureCode::kOther);
    }
  }
  bool answered() const { return answered_; }
  int socket() const { return socket_; }

 private:
  std::string failed(const std::exception& error, FailureCode code) {
    const std::string text = textOf(error);
    if (!answered_) {
      answer(Failure{code, text});
      answered_ = false;
    }
    return text;
  }
  void answer(Message message) {
    const std::string bytes = encode({request_.request, request_.container, std::move(message)});
    send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    answered_ = true;
  }

  const Frame& request_;
  int socket_;
  bool answered_ = false;
};

// Nothing of hull-init's but these two: an inherited pipe end would keep somebody's input open.
void keepOnly(int socket, int result) {
  // Both may be in each other's place.
  const int spare_socket = dup(socket);
  const int spare_result = dup(result);
  dup2(spare_socket, kSocketNumber);
  dup2(spare_result, kResultNumber);
  syscall(SYS_close_range, kResultNumber + 1, ~0U, 0);
}

}  // namespace

Transfer::Transfer(const Frame& request, Fd socket)
    : container_(request.container), socket_(std::move(socket)) {
  const auto* open = std::get_if<OpenStream>(&request.message);
  writes_layer_ = open && open->kind == OpenStream::Kind::kWriteLayer;
}

template <typename ChildWork>
void Transfer::fork(const ChildWork& child) {
  FdPair result = makePipe(O_NONBLOCK);
  pid_ = ::fork();
  if (pid_ < 0) throw sysError("start transfer");
  if (pid_ > 0) {
    result_ = std::move(result.first);
    return;
  }
  keepOnly(socket_.get(), result.second.get());
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(0);
  setNonBlocking(kSocketNumber, false);
  const auto [status, error] = child(kSocketNumber);
  // A pipe holds more than kMaxErrorBytes, so this neither blocks nor fails.
  [[maybe_unused]] const ssize_t put = ::write(kResultNumber, error.data(), error.size());
  _exit(status);
}

std::unique_ptr<Transfer> Transfer::read(const Frame& request, Fd socket, const ReadWork& work) {
  std::unique_ptr<Transfer> transfer(new Transfer(request, std::move(socket)));
  transfer->fork([&](int connection) {
    Child child(request, connection);
    ChunkSink chunks(connection);
    std::string error = child.run([&](const Ready& ready) {
      work(chunks, ready);
      chunks.flush();
    });
    if (!child.answered()) return std::pair(kRefused, error);
    // Before the end is sent: the host may ask for the next thing as soon as it has read it.
    [[maybe_unused]] const ssize_t put = ::write(kResultNumber, "\n", 1);
    try {
      chunks.flush();
      sendEnd(connection, error);
    } catch (const Error& broken) {
      error = textOf(broken);
    }
    return std::pair(error.empty() ? kSucceeded : kFailed, error);
  });
  transfer->socket_.reset();
  return transfer;
}

std::unique_ptr<Transfer> Transfer::write(const Frame& request, Fd socket, const WriteWork& work,
                                          std::function<std::string(std::string error)> conclude) {
  std::unique_ptr<Transfer> transfer(new Transfer(request, std::move(socket)));
  transfer->answers_ = true;
  transfer->conclude_ = std::move(conclude);
  transfer->fork([&](int connection) {
    Child child(request, connection);
    ChunkSource chunks(connection);
    const std::string error = child.run([&](const Ready& ready) {
      work(chunks, ready);
      chunks.drain();
    });
    if (!child.answered()) return std::pair(kRefused, error);
    if (error.empty()) return std::pair(kSucceeded, error);
    try {
      chunks.drain();  // the host sends on until its own end, and hears of the error only then
    } catch (const Error&) {
      // The first error counts.
    }
    return std::pair(kFailed, error);
  });
  return transfer;
}

Transfer::~Transfer() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

bool Transfer::ending() const {
  pollfd polled{result_.get(), POLLIN, 0};
  return !answers_ && poll(&polled, 1, 0) > 0;
}

void Transfer::finish(int wait_status) {
  pid_ = -1;
  if (!answers_) return;
  const int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : kFailed;
  std::array<char, kMaxErrorBytes> text;
  const ssize_t got = ::read(result_.get(), text.data(), text.size());
  std::string error = got > 0 ? std::string(text.data(), static_cast<size_t>(got)) : std::string();
  if (status != kSucceeded && error.empty()) error = "the transfer was killed";
  error = conclude_(std::move(error));
  if (status == kRefused) return;
  try {
    sendEnd(socket_.get(), error);
  } catch (const Error&) {
    // The host has gone; it will find out.
  }
}

}  // namespace hull::guest
