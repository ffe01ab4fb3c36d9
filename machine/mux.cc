#include "machine/mux.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace hull::machine {

namespace {
// Streams stop adding data above the first; above the second nothing more is read from the peer, so
// that a flood of frames that want answers cannot fill memory.
constexpr size_t kOutputFullBytes = size_t{1} << 20;
constexpr size_t kOutputRefusingBytes = size_t{8} << 20;
constexpr size_t kWriteBytes = 256 * 1024;
constexpr int kReadsPerWakeup = 8;
}  // namespace

Mux::Mux(EventLoop& loop, Fd channel, Side side, Acceptor acceptor, Broken broken)
    : loop_(loop),
      channel_(std::move(channel)),
      side_(side),
      acceptor_(std::move(acceptor)),
      broken_(std::move(broken)),
      next_stream_(side == Side::kHost ? 1 : 2) {
  setNonBlocking(channel_.get());
  interest_ = EPOLLIN;
  loop_.add(channel_.get(), interest_, [this](uint32_t events) { onChannel(events); });
}

Mux::~Mux() {
  if (channel_) loop_.remove(channel_.get());
}

uint32_t Mux::open(std::string_view target, std::shared_ptr<StreamEvents> events) {
  if (!channel_ || streams_.size() >= kMaxStreams || target.size() > kMaxPayloadBytes) return 0;
  while (next_stream_ == 0 || streams_.contains(next_stream_)) next_stream_ += 2;
  const uint32_t id = next_stream_;
  next_stream_ += 2;
  streams_.emplace(id, Stream{std::move(events)});
  appendFrame(output_, FrameType::kOpen, id, target);
  updateInterest();
  return id;
}

size_t Mux::room(uint32_t id) const {
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second.fin_sent) return 0;
  if (queued() >= kOutputFullBytes) {
    found->second.waiting = true;
    starved_ = true;
    return 0;
  }
  return std::min<size_t>(found->second.send_window, kMaxPayloadBytes);
}

void Mux::send(uint32_t id, std::string_view bytes) {
  const auto found = streams_.find(id);
  if (found == streams_.end() || bytes.empty()) return;
  if (bytes.size() > found->second.send_window || bytes.size() > kMaxPayloadBytes) {
    throw Error(ErrorKind::kInternal, "send on machine stream: more than its window");
  }
  found->second.send_window -= static_cast<uint32_t>(bytes.size());
  appendFrame(output_, FrameType::kData, id, bytes);
  updateInterest();
}

void Mux::consumed(uint32_t id, size_t bytes) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  found->second.unreported += static_cast<uint32_t>(bytes);
  grant(id, found->second);
}

// In halves of the window: few frames, and the sender never runs dry on a steady stream.
void Mux::grant(uint32_t id, Stream& stream) {
  if (stream.unreported < kStreamWindowBytes / 2 || stream.fin_received) return;
  stream.receive_window += stream.unreported;
  appendFrame(output_, FrameType::kWindow, id, stream.unreported);
  stream.unreported = 0;
  updateInterest();
}

void Mux::fin(uint32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second.fin_sent) return;
  found->second.fin_sent = true;
  appendFrame(output_, FrameType::kFin, id, 0);
  updateInterest();
  finishIfDone(id);
}

void Mux::close(uint32_t id) {
  if (streams_.erase(id) == 0) return;
  appendFrame(output_, FrameType::kClose, id, 0);
  updateInterest();
}

void Mux::reset(uint32_t id) {
  if (streams_.erase(id) == 0) return;
  appendFrame(output_, FrameType::kReset, id, 0);
  updateInterest();
}

void Mux::finishIfDone(uint32_t id) {
  const auto found = streams_.find(id);
  if (found != streams_.end() && found->second.fin_sent && found->second.fin_received) {
    streams_.erase(found);
  }
}

void Mux::onChannel(uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !writeChannel()) return;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) readChannel();
  if (channel_) {
    wakeWaiting();
    updateInterest();
  }
}

void Mux::readChannel() {
  for (int i = 0; i < kReadsPerWakeup && channel_ && queued() < kOutputRefusingBytes; ++i) {
    const auto space = parser_.space();
    const ssize_t got = ::read(channel_.get(), space.data(), space.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      return breakChannel(got == 0 ? "the other side closed the channel"
                                   : std::string("read from the channel: ") + strerror(errno));
    }
    parser_.commit(static_cast<size_t>(got));
    while (const auto frame = parser_.next()) {
      handle(*frame);
      if (!channel_) return;
    }
    if (parser_.failed()) return breakChannel("protocol error: " + parser_.failure());
  }
}

bool Mux::writeChannel() {
  while (queued() > 0) {
    const size_t size = std::min(queued(), kWriteBytes);
    const ssize_t put = ::write(channel_.get(), output_.data() + output_begin_, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) break;
    if (put <= 0) {
      breakChannel(std::string("write to the channel: ") + strerror(errno));
      return false;
    }
    output_begin_ += static_cast<size_t>(put);
  }
  if (output_begin_ == output_.size() || output_begin_ >= kOutputFullBytes / 2) {
    output_.erase(0, output_begin_);
    output_begin_ = 0;
  }
  return true;
}

void Mux::updateInterest() {
  if (!channel_) return;
  const uint32_t wanted =
      (queued() > 0 ? EPOLLOUT : 0U) | (queued() < kOutputRefusingBytes ? EPOLLIN : 0U);
  if (wanted == interest_) return;
  interest_ = wanted;
  loop_.modify(channel_.get(), interest_);
}

void Mux::wakeWaiting() {
  if (!starved_ || queued() >= kOutputFullBytes / 2) return;
  starved_ = false;
  std::vector<std::shared_ptr<StreamEvents>> woken;
  for (auto& [id, stream] : streams_) {
    if (std::exchange(stream.waiting, false)) woken.push_back(stream.events);
  }
  for (const auto& events : woken) events->onWritable();
}

void Mux::handle(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kOpen:
      return handleOpen(frame);
    case FrameType::kData:
      return handleData(frame);
    case FrameType::kWindow: {
      const auto found = streams_.find(frame.stream);
      if (found == streams_.end()) return;  // closed here while the frame was under way
      if (frame.value > kStreamWindowBytes - found->second.send_window) {
        return breakChannel("protocol error: a window beyond its limit");
      }
      found->second.send_window += frame.value;
      const auto events = found->second.events;
      return events->onWritable();
    }
    case FrameType::kFin:
    case FrameType::kClose:
    case FrameType::kReset:
      return handleEnd(frame);
  }
}

void Mux::handleOpen(const Frame& frame) {
  const bool odd = (frame.stream & 1) != 0;
  if (frame.stream == 0 || odd == (side_ == Side::kHost) || streams_.contains(frame.stream)) {
    return breakChannel("protocol error: stream number " + std::to_string(frame.stream));
  }
  if (streams_.size() >= kMaxStreams) {
    appendFrame(output_, FrameType::kReset, frame.stream, 0);
    return;
  }
  // Entered first: the acceptor may send on the stream at once.
  streams_.emplace(frame.stream, Stream{});
  auto events = acceptor_(frame.stream, frame.payload);
  const auto found = streams_.find(frame.stream);
  if (found == streams_.end()) return;
  if (!events) return reset(frame.stream);
  found->second.events = std::move(events);
}

void Mux::handleData(const Frame& frame) {
  const auto found = streams_.find(frame.stream);
  if (found == streams_.end()) return;
  Stream& stream = found->second;
  if (frame.value > stream.receive_window || stream.fin_received) {
    return breakChannel("protocol error: data beyond the window or after the end");
  }
  stream.receive_window -= frame.value;
  const auto events = stream.events;  // outlives what it does to the stream
  events->onData(frame.payload);
}

void Mux::handleEnd(const Frame& frame) {
  const auto found = streams_.find(frame.stream);
  if (found == streams_.end()) return;
  const auto events = found->second.events;
  if (frame.type == FrameType::kFin) {
    if (found->second.fin_received) return;
    found->second.fin_received = true;
    finishIfDone(frame.stream);
    return events->onFin();
  }
  streams_.erase(found);
  events->onClosed(frame.type == FrameType::kClose);
}

void Mux::breakChannel(const std::string& reason) {
  loop_.remove(channel_.get());
  channel_.reset();
  auto streams = std::move(streams_);
  streams_.clear();
  for (auto& [id, stream] : streams) {
    if (stream.events) stream.events->onClosed(false);
  }
  broken_(reason);
}

}  // namespace hull::machine
