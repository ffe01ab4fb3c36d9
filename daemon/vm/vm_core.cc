#include "daemon/vm/vm_core.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxStatusBytes = 16 * 1024;
constexpr size_t kMaxStatusTextBytes = 2048;
constexpr size_t kTailBytes = 2048;
constexpr int kEndsTogetherMs = 500;  // passt and the VMM whose end is passt's, too

int pollMilliseconds(const std::optional<Deadline>& until) {
  if (!until) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

// A callback's failure is the engine's to handle; here it only must not end the process.
template <typename Work>
void guarded(const char* what, Work&& work) {
  try {
    work();
  } catch (const std::exception& error) {
    log::error(std::string(what) + ": " + error.what());
  }
}

void wake(int event_fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(event_fd, &one, sizeof one);
}

}  // namespace

std::optional<VmExit> readExitStatus(const std::string& directory) {
  // Written by a process that may have been taken over: bounded, and nothing but two strings.
  std::string text;
  try {
    text = readFile(directory + "/" + kStatusFile, kMaxStatusBytes);
  } catch (const Error&) {
    return std::nullopt;
  }
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto reason = json.find("reason");
  if (reason == json.end() || !reason->is_string()) return std::nullopt;
  VmExit exit{printable(reason->get<std::string>(), kMaxStatusTextBytes), {}};
  const auto detail = json.find("detail");
  if (detail != json.end() && detail->is_string()) {
    exit.detail = printable(detail->get<std::string>(), kMaxStatusTextBytes);
  }
  return exit;
}

// The end of a log, at a line's beginning where there is one.
std::string tailOf(const std::string& path) {
  try {
    const Fd file = openFile(path, O_RDONLY);
    const uint64_t size = fileSize(file.get());
    const uint64_t from = size > kTailBytes ? size - kTailBytes : 0;
    std::string text(static_cast<size_t>(size - from), '\0');
    text.resize(preadFull(file.get(), std::as_writable_bytes(std::span(text)), from));
    if (from > 0) text.erase(0, text.find('\n') + 1);
    std::erase(text, '\r');
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return printable(text);
  } catch (const Error&) {
    return {};
  }
}

VmCore::VmCore(std::string directory, VmProcesses processes, Fd control, Quota::Lease lease)
    : directory_(std::move(directory)),
      process_(std::move(processes.vmm)),
      share_(std::move(processes.share)),
      passt_(std::move(processes.passt)),
      control_(std::move(control)),
      wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      lease_(std::move(lease)) {
  if (!wakeup_) throw sysError("create event descriptor");
}

void VmCore::run() {
  reader_ = std::thread([self = shared_from_this()] { self->readLoop(); });
  deliverer_ = std::thread([self = shared_from_this()] { self->deliverLoop(); });
}

void VmCore::readLoop() {
  bool connected = true;
  for (;;) {
    std::array<pollfd, 4> polled{{{connected ? control_.get() : -1, POLLIN, 0},
                                  {process_.pidfd(), POLLIN, 0},
                                  {wakeup_.get(), POLLIN, 0},
                                  {passt_ ? passt_->pidfd() : -1, POLLIN, 0}}};
    const int ready = poll(polled.data(), polled.size(), pollMilliseconds(give_up_));
    if (ready < 0 && errno != EINTR) return loseConnection("poll failed", true);
    if (polled[2].revents != 0) return;
    if (connected && polled[0].revents != 0) connected = readFrames();
    if (polled[1].revents != 0) {
      while (connected && readFrames()) {
        // The last events: the process is gone, so the stream ends.
      }
      return recordExit();
    }
    if (polled[3].revents != 0) passtEnded();
    if (ready == 0 && give_up_) {
      loseConnection("the guest closed its control connection", true);
      give_up_.reset();
    }
  }
}

// The container goes on without a network: what it does with that is its own affair.
void VmCore::passtEnded() {
  if (process_.waitEnded(kEndsTogetherMs)) return;
  passt_->reap();
  passt_.reset();
  const std::string words = tailOf(directory_ + "/" + kPasstLogFile);
  log::warning("virtual machine " + directory_ +
               ": passt, which is its network, has ended: it has none any more until it is started "
               "again" +
               (words.empty() ? "" : "; passt said:\n" + words));
}

bool VmCore::readFrames() {
  try {
    const auto filled = assembler_.fill(control_.get());
    while (auto frame = assembler_.next()) takeFrame(std::move(*frame));
    if (filled != FrameAssembler::Filled::kEnd) return true;
    loseConnection("the guest closed its control connection", false);
  } catch (const Error& error) {
    loseConnection(error.what(), true);
  }
  return false;
}

void VmCore::takeFrame(guest::Frame frame) {
  const Lock lock(mutex_);
  if (frame.request != 0) {
    // An unknown number answers a request that has timed out.
    const auto found = pending_.find(frame.request);
    if (found != pending_.end()) found->second.reply = std::move(frame.message);
  } else if (auto* exited = std::get_if<guest::ProcessExited>(&frame.message)) {
    if (events_.size() >= kMaxQueuedEvents) {
      throw Error(ErrorKind::kTooLarge, "the guest sent too many events");
    }
    events_.push_back({std::move(frame.container), std::move(*exited)});
  } else {
    throw Error(ErrorKind::kCorrupt, "the guest sent an event that is none");
  }
  changed_.notify_all();
}

void VmCore::loseConnection(const std::string& why, bool guests_fault) {
  shutdown(control_.get(), SHUT_RDWR);
  {
    const Lock lock(mutex_);
    if (lost_.empty()) lost_ = why;
    if (guests_fault && ended_for_.empty()) ended_for_ = why;
  }
  changed_.notify_all();
  if (guests_fault) {
    log::warning("virtual machine " + directory_ + ": ended, because " + why);
    process_.kill(SIGKILL);
  } else {
    give_up_ = deadlineIn(kLostConnectionGrace);
  }
}

void VmCore::recordExit() {
  const auto status = process_.reap();
  // Before anybody is told: what the guest wrote to its folders is theirs now.
  if (share_) endHelper(*share_, "shares folders");
  if (passt_) endHelper(*passt_, "is its network");
  VmExit exit = readExitStatus(directory_).value_or(VmExit{"killed", {}});
  const Lock lock(mutex_);
  if (!ended_for_.empty()) {
    exit = {"error", ended_for_};
  } else if (exit.reason == "killed" && status) {
    exit.detail = "the VMM ended with status " + std::to_string(*status);
  }
  if (lost_.empty()) lost_ = "the virtual machine has ended";
  exit_ = std::move(exit);
  lease_ = {};
  changed_.notify_all();
}

void VmCore::deliverLoop() {
  Lock lock(mutex_);
  while (deliverNext(lock)) {
  }
}

const Vm::EventFunction* VmCore::takerOf(const std::string& container) const {
  const auto found = listeners_.find(container);
  const auto& function = found == listeners_.end() ? event_function_ : found->second.exited;
  return function ? &function : nullptr;
}

Vm::ExitFunction* VmCore::untoldOfExit() {
  if (!exit_) return nullptr;
  if (exit_function_) return &exit_function_;
  for (auto& [container, listener] : listeners_) {
    if (listener.ended) return &listener.ended;
  }
  return nullptr;
}

bool VmCore::deliverNext(Lock& lock) {
  std::deque<Event>::iterator next;
  const auto nextEvent = [&] {
    next = std::find_if(events_.begin(), events_.end(),
                        [this](const Event& event) { return takerOf(event.container) != nullptr; });
    return next != events_.end();
  };
  changed_.wait(lock, [&] { return closing_ || nextEvent() || untoldOfExit() != nullptr; });
  if (closing_) return false;
  if (nextEvent()) {
    const Event event = std::move(*next);
    events_.erase(next);
    const auto function = *takerOf(event.container);
    lock.unlock();
    guarded("handle the exit of a process", [&] { function(event.container, event.exited); });
    lock.lock();
    return true;
  }
  const auto function = std::exchange(*untoldOfExit(), nullptr);
  const VmExit exit = *exit_;
  lock.unlock();
  guarded("handle the end of a virtual machine", [&] { function(exit); });
  lock.lock();
  return true;
}

void VmCore::throwGone() const {
  std::string why = exit_ ? "the virtual machine has ended (" + exit_->reason : lost_;
  if (exit_) why += (exit_->detail.empty() ? "" : ": " + exit_->detail) + ")";
  throw Error(ErrorKind::kUnavailable, why);
}

guest::Message VmCore::request(const std::string& container, guest::Message message,
                               std::chrono::milliseconds timeout) {
  const Deadline deadline = deadlineIn(timeout);
  uint32_t id;
  {
    const Lock lock(mutex_);
    if (!lost_.empty()) throwGone();
    do {
      id = next_request_++;
    } while (id == 0 || pending_.contains(id));
    pending_[id];
  }
  std::optional<guest::Message> reply;
  try {
    send({id, container, std::move(message)}, deadline);
    Lock lock(mutex_);
    changed_.wait_until(lock, deadline,
                        [&] { return pending_[id].reply.has_value() || !lost_.empty(); });
    reply = std::move(pending_[id].reply);
    pending_.erase(id);
    if (!reply && !lost_.empty()) throwGone();
  } catch (...) {
    const Lock lock(mutex_);
    pending_.erase(id);
    throw;
  }
  if (!reply) throw Error(ErrorKind::kTimeout, "the guest did not answer in time");
  if (const auto* failure = std::get_if<guest::Failure>(&*reply)) throwFailure(*failure);
  return std::move(*reply);
}

void VmCore::send(const guest::Frame& frame, Deadline deadline) {
  const std::string bytes = guest::encode(frame);
  {
    Lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [this] { return !sending_ || !lost_.empty(); })) {
      throw Error(ErrorKind::kTimeout, "the guest does not take requests");
    }
    if (!lost_.empty()) throwGone();
    sending_ = true;
  }
  std::optional<Error> failure;
  try {
    sendAll(control_.get(), bytes, deadline, process_.pidfd());
  } catch (const Error& error) {
    // Part of a frame may be out: the connection cannot be used any more. The reader sees its end.
    shutdown(control_.get(), SHUT_RDWR);
    const bool late = error.kind() == ErrorKind::kTimeout;
    failure.emplace(late ? ErrorKind::kTimeout : ErrorKind::kUnavailable, error.what());
  }
  {
    const Lock lock(mutex_);
    sending_ = false;
  }
  changed_.notify_all();
  if (failure) throw Error(*failure);
}

void VmCore::setEventFunction(Vm::EventFunction function) {
  const Lock lock(mutex_);
  event_function_ = std::move(function);
  changed_.notify_all();
}

void VmCore::setExitFunction(Vm::ExitFunction function) {
  const Lock lock(mutex_);
  exit_function_ = std::move(function);
  changed_.notify_all();
}

void VmCore::listen(const std::string& container, Vm::EventFunction exited,
                    Vm::ExitFunction ended) {
  const Lock lock(mutex_);
  listeners_[container] = {std::move(exited), std::move(ended)};
  changed_.notify_all();
}

void VmCore::stopListening(const std::string& container) {
  const Lock lock(mutex_);
  listeners_.erase(container);
  std::erase_if(events_, [&](const Event& event) { return event.container == container; });
}

std::optional<VmExit> VmCore::waitExit(Deadline deadline) {
  Lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return exit_.has_value(); });
  return exit_;
}

bool VmCore::ended() {
  const Lock lock(mutex_);
  return exit_.has_value();
}

void VmCore::close(bool leave_running) {
  {
    const Lock lock(mutex_);
    if (closing_) return;
    closing_ = true;
    if (lost_.empty()) lost_ = "the engine let go of the virtual machine";
  }
  changed_.notify_all();
  if (leave_running) {
    wake(wakeup_.get());
  } else {
    process_.kill(SIGKILL);  // the reader collects it
  }
  if (reader_.joinable()) reader_.join();
  if (leave_running) {
    process_.abandon();
    if (share_) share_->abandon();
    if (passt_) passt_->abandon();
  }
  shutdown(control_.get(), SHUT_RDWR);
  if (!deliverer_.joinable()) return;
  // A callback may be what lets go of the VM.
  if (deliverer_.get_id() == std::this_thread::get_id()) {
    deliverer_.detach();
  } else {
    deliverer_.join();
  }
}

}  // namespace hull::engine
