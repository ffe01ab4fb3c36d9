#include "daemon/vm/process_output.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <list>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine {

namespace {

constexpr size_t kReceiveBytes = 64 * 1024;
constexpr std::chrono::seconds kRetryLog{1};  // when the disk is full

int64_t nowNs() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

size_t indexOf(OutputKind kind) {
  return kind == OutputKind::kStdout ? 0 : 1;
}

// `size` or a little less, so that no UTF-8 sequence is cut.
size_t cutBefore(std::string_view text, size_t size) {
  size_t at = size;
  while (at > size - 4 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80 ? size : at;
}

}  // namespace

// --- subscriptions ---

struct OutputSubscription::Queue {
  std::deque<OutputChunk> chunks;
  size_t bytes = 0;
  WhenSlow when_slow = WhenSlow::kWait;
  bool cancelled = false;
  bool overflowed = false;
};

// What the pump shares with everyone else.
struct OutputSubscription::Hub {
  mutable std::mutex mutex;  // everything below, and the queues
  std::condition_variable changed;
  std::list<std::shared_ptr<Queue>> queues;
  uint64_t log_bytes = 0;
  std::array<std::string, 2> unfinished;  // received, but in no log yet
  bool ended = false;
  bool stopped = false;

  bool over() const { return ended || stopped; }
  bool mustWait() const {
    return std::any_of(queues.begin(), queues.end(), [](const auto& queue) {
      return queue->when_slow == WhenSlow::kWait && queue->bytes >= kMaxQueuedOutputBytes;
    });
  }
  void drop(const std::shared_ptr<Queue>& queue) {
    queue->chunks.clear();
    queue->bytes = 0;
    queues.remove(queue);
    changed.notify_all();
  }
};

OutputSubscription::~OutputSubscription() {
  cancel();
}

std::optional<OutputChunk> OutputSubscription::next() {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait(lock, [this] {
    return !queue_->chunks.empty() || queue_->cancelled || queue_->overflowed || hub_->over();
  });
  if (queue_->chunks.empty()) return std::nullopt;
  OutputChunk chunk = std::move(queue_->chunks.front());
  queue_->chunks.pop_front();
  queue_->bytes -= chunk.bytes.size();
  hub_->changed.notify_all();
  return chunk;
}

void OutputSubscription::cancel() {
  const std::lock_guard lock(hub_->mutex);
  queue_->cancelled = true;
  hub_->drop(queue_);
}

bool OutputSubscription::overflowed() const {
  const std::lock_guard lock(hub_->mutex);
  return queue_->overflowed;
}

// --- the pump ---

struct ProcessOutput::Stream {
  OutputKind kind = OutputKind::kStdout;
  Fd socket;
  bool open = true;
  std::string unfinished;     // received, not yet cut into entries
  uint64_t total = 0;         // stored, or passed on when there is no log
  uint64_t acknowledged = 0;  // told to the guest
  std::string unsent;         // rest of an acknowledgement that the socket did not take
};

// What one turn of the pump received.
struct ProcessOutput::Round {
  std::string encoded;
  std::array<uint64_t, 2> consumed{};
  std::vector<OutputChunk> chunks;
};

ProcessOutput::ProcessOutput(const Options& options)
    : hub_(std::make_shared<OutputSubscription::Hub>()),
      wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      terminal_(options.terminal) {
  if (!wakeup_) throw sysError("create event descriptor");
  if (options.log_path.empty()) return;
  log_ = std::make_unique<OutputLog>(options.log_path, options.resume, options.limits);
  hub_->log_bytes = log_->bytes();
}

ProcessOutput::~ProcessOutput() {
  stop();
}

void ProcessOutput::begin(const OpenFunction& open) {
  const std::lock_guard lock(lifecycle_);
  if (begun_) throw Error(ErrorKind::kInternal, "follow output: begun already");
  std::vector<std::unique_ptr<Stream>> streams;
  for (const OutputKind kind : {OutputKind::kStdout, OutputKind::kStderr}) {
    if (terminal_ && kind == OutputKind::kStderr) continue;
    auto stream = std::make_unique<Stream>();
    stream->kind = kind;
    stream->total = stream->acknowledged = log_ ? log_->consumed(kind) : 0;
    stream->socket = open(kind, stream->total);
    streams.push_back(std::move(stream));
  }
  streams_ = std::move(streams);
  begun_ = true;
  thread_ = std::thread([this] { pump(); });
}

void ProcessOutput::pump() {
  bool finished = false;
  try {
    while (waitForInput()) {
      Round round;
      for (auto& stream : streams_) {
        if (stream->open) receive(*stream, round);
      }
      if (!store(round) || !publish(round)) return;
      for (auto& stream : streams_) acknowledge(*stream);
      finished = std::none_of(streams_.begin(), streams_.end(),
                              [](const auto& stream) { return stream->open; });
      if (finished) break;
    }
  } catch (const Error& error) {
    log::error(std::string("follow a process's output: ") + error.what());
    finished = true;
  }
  const std::lock_guard lock(hub_->mutex);
  if (finished) {
    hub_->ended = true;
  } else {
    hub_->stopped = true;
  }
  hub_->changed.notify_all();
}

// False once stopped.
bool ProcessOutput::waitForInput() {
  std::vector<pollfd> polled{{wakeup_.get(), POLLIN, 0}};
  for (const auto& stream : streams_) {
    if (!stream->open) continue;
    const short wanted = stream->unsent.empty() ? POLLIN : POLLIN | POLLOUT;
    polled.push_back({stream->socket.get(), wanted, 0});
  }
  while (poll(polled.data(), polled.size(), -1) < 0) {
    if (errno != EINTR) throw sysError("wait for output");
  }
  return polled[0].revents == 0;
}

void ProcessOutput::receive(Stream& stream, Round& round) {
  std::array<char, kReceiveBytes> buffer;
  const ssize_t got = recv(stream.socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    stream.open = false;  // a reset is an end too: the VM is gone
  } else {
    const std::string_view bytes(buffer.data(), static_cast<size_t>(got));
    round.chunks.push_back({stream.kind, std::string(bytes)});
    if (log_) {
      stream.unfinished += bytes;
    } else {
      round.consumed[indexOf(stream.kind)] += bytes.size();
    }
  }
  cutLines(stream, round);
}

void ProcessOutput::cutLines(Stream& stream, Round& round) {
  std::string_view rest = stream.unfinished;
  const int64_t now = nowNs();
  while (!rest.empty()) {
    size_t size = rest.substr(0, kMaxLogTextBytes).find('\n') + 1;
    if (size == 0 && rest.size() > kMaxLogTextBytes) size = cutBefore(rest, kMaxLogTextBytes);
    if (size == 0 && !stream.open) size = rest.size();
    if (size == 0) break;
    round.encoded += encodeLogEntry({stream.kind, now, std::string(rest.substr(0, size))});
    round.consumed[indexOf(stream.kind)] += size;
    rest.remove_prefix(size);
  }
  stream.unfinished.erase(0, stream.unfinished.size() - rest.size());
}

// Nothing is given up when the log cannot be written: it is tried until it can, and meanwhile the
// guest keeps what it has. False once stopped.
bool ProcessOutput::store(const Round& round) {
  for (bool told = false; log_ && !round.encoded.empty();) {
    try {
      log_->append(round.encoded, round.consumed);
      break;
    } catch (const Error& error) {
      if (!told) log::error(std::string("write a container's log, trying again: ") + error.what());
      told = true;
    }
    if (!pauseUnlessStopped(kRetryLog)) return false;
  }
  for (auto& stream : streams_) stream->total += round.consumed[indexOf(stream->kind)];
  return true;
}

bool ProcessOutput::pauseUnlessStopped(std::chrono::milliseconds time) {
  std::unique_lock lock(hub_->mutex);
  return !hub_->changed.wait_for(lock, time, [this] { return hub_->stopped; });
}

// To everyone attached, at once with the log's new size: whoever subscribes finds either both the
// bytes in the log (or unfinished) or both still to come. False once stopped.
bool ProcessOutput::publish(Round& round) {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait(lock, [this] { return !hub_->mustWait() || hub_->stopped; });
  if (hub_->stopped) return false;
  if (log_) hub_->log_bytes = log_->bytes();
  for (const auto& stream : streams_) hub_->unfinished[indexOf(stream->kind)] = stream->unfinished;
  const auto queues = hub_->queues;  // overflowing ones leave the list
  for (const auto& queue : queues) {
    for (const auto& chunk : round.chunks) {
      queue->chunks.push_back(chunk);
      queue->bytes += chunk.bytes.size();
    }
    if (queue->when_slow == OutputSubscription::WhenSlow::kDrop &&
        queue->bytes > kMaxQueuedOutputBytes) {
      queue->overflowed = true;
      hub_->drop(queue);
    }
  }
  hub_->changed.notify_all();
  return true;
}

void ProcessOutput::acknowledge(Stream& stream) {
  if (!stream.open) return;
  if (stream.unsent.empty() && stream.total != stream.acknowledged) {
    stream.acknowledged = stream.total;
    stream.unsent.resize(sizeof stream.total);
    std::memcpy(stream.unsent.data(), &stream.total, sizeof stream.total);
  }
  if (stream.unsent.empty()) return;
  const ssize_t put = send(stream.socket.get(), stream.unsent.data(), stream.unsent.size(),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
  if (put > 0) stream.unsent.erase(0, static_cast<size_t>(put));
}

// --- everyone else ---

std::unique_ptr<OutputSubscription> ProcessOutput::subscribe(OutputSubscription::WhenSlow when_slow,
                                                             bool with_unfinished) {
  auto queue = std::make_shared<OutputSubscription::Queue>();
  queue->when_slow = when_slow;
  const std::lock_guard lock(hub_->mutex);
  for (const OutputKind kind : {OutputKind::kStdout, OutputKind::kStderr}) {
    const std::string& text = hub_->unfinished[indexOf(kind)];
    if (!with_unfinished || text.empty()) continue;
    queue->chunks.push_back({kind, text});
    queue->bytes += text.size();
  }
  hub_->queues.push_back(queue);
  return std::unique_ptr<OutputSubscription>(
      new OutputSubscription(hub_, std::move(queue), hub_->log_bytes));
}

bool ProcessOutput::ended() const {
  const std::lock_guard lock(hub_->mutex);
  return hub_->ended;
}

bool ProcessOutput::over() const {
  const std::lock_guard lock(hub_->mutex);
  return hub_->over();
}

bool ProcessOutput::waitEnded(std::chrono::milliseconds timeout) {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait_for(lock, timeout, [this] { return hub_->over(); });
  return hub_->ended;
}

uint64_t ProcessOutput::waitForLog(uint64_t known_bytes, std::chrono::milliseconds timeout) {
  std::unique_lock lock(hub_->mutex);
  hub_->changed.wait_for(lock, timeout,
                         [&] { return hub_->log_bytes > known_bytes || hub_->over(); });
  return hub_->log_bytes;
}

void ProcessOutput::stop() {
  const std::lock_guard lifecycle(lifecycle_);
  begun_ = true;  // too late to begin
  {
    const std::lock_guard lock(hub_->mutex);
    if (!hub_->ended) hub_->stopped = true;
    hub_->changed.notify_all();
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(wakeup_.get(), &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

}  // namespace hull::engine
