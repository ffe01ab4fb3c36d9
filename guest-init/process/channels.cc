#include "guest-init/process/channels.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace hull::guest {

namespace {
constexpr size_t kReadBytes = 64 * 1024;
}

OutputChannel::OutputChannel(EventLoop& loop, Fd source, bool expected)
    : loop_(loop), source_(std::move(source)), ended_(!source_ && !expected) {
  watch();
}

void OutputChannel::setSource(Fd source) {
  source_ = std::move(source);
  watch();
}

// A full buffer is not watched: the process blocks on its pipe until the host has acknowledged.
void OutputChannel::watch() {
  if (!source_) return;
  const bool wanted = retained_.room() > 0;
  if (wanted && !loop_.watches(source_.get())) {
    loop_.add(source_.get(), EPOLLIN, [this](uint32_t) { readSource(); });
  } else if (!wanted && loop_.watches(source_.get())) {
    loop_.remove(source_.get());
  }
}

void OutputChannel::readSource() {
  std::array<char, kReadBytes> buffer;
  const size_t room = std::min(buffer.size(), retained_.room());
  const ssize_t got = ::read(source_.get(), buffer.data(), room);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0) {
    retained_.append(std::string_view(buffer.data(), static_cast<size_t>(got)));
    watch();
  } else {
    close();  // 0: all writers closed; EIO: the same for a terminal
    ended_ = true;
  }
  notify();
}

bool OutputChannel::acknowledge(uint64_t total) {
  if (!retained_.acknowledge(total)) return false;
  watch();
  return true;
}

void OutputChannel::abandon() {
  close();
  abandoned_ = true;
  notify();
}

void OutputChannel::endIfSourceless() {
  if (source_ || ended_) return;
  ended_ = true;
  notify();
}

void OutputChannel::close() {
  if (source_) loop_.remove(source_.get());
  source_.reset();
}

void OutputChannel::setReader(const void* reader, std::function<void()> changed) {
  const auto former = std::exchange(changed_, std::move(changed));
  reader_ = reader;
  if (former) former();
}

void OutputChannel::clearReader(const void* reader) {
  if (reader_ != reader) return;
  reader_ = nullptr;
  changed_ = nullptr;
}

void OutputChannel::notify() {
  if (const auto changed = changed_; changed) changed();  // a copy: it may clear itself
}

InputChannel::InputChannel(EventLoop& loop, Fd sink, bool terminal)
    : loop_(loop), sink_(std::move(sink)), terminal_(terminal), closed_(!sink_ && !terminal) {}

void InputChannel::setSink(Fd sink) {
  sink_ = std::move(sink);
  flush();
}

void InputChannel::write(std::string_view bytes) {
  if (closed_) return;
  pending_.append(bytes);
  flush();
}

void InputChannel::finish() {
  if (terminal_) return;
  finishing_ = true;
  flush();
}

void InputChannel::flush() {
  if (!sink_) return;  // a terminal that is still to come
  while (!pending_.empty()) {
    const ssize_t put = ::write(sink_.get(), pending_.data(), pending_.size());
    if (put > 0) {
      pending_.erase(0, static_cast<size_t>(put));
    } else if (put < 0 && errno == EINTR) {
      continue;
    } else if (put < 0 && errno == EAGAIN) {
      if (!loop_.watches(sink_.get())) {
        loop_.add(sink_.get(), EPOLLOUT, [this](uint32_t) { flush(); });
      }
      return;
    } else {
      return close();  // nobody reads any more
    }
  }
  if (finishing_) return close();
  if (loop_.watches(sink_.get())) {
    loop_.remove(sink_.get());
    notify();
  }
}

void InputChannel::close() {
  if (closed_) return;
  if (sink_) loop_.remove(sink_.get());
  sink_.reset();
  pending_.clear();
  closed_ = true;
  notify();
}

void InputChannel::setWriter(const void* writer, std::function<void()> changed) {
  const auto former = std::exchange(changed_, std::move(changed));
  writer_ = writer;
  if (former) former();
}

void InputChannel::clearWriter(const void* writer) {
  if (writer_ != writer) return;
  writer_ = nullptr;
  changed_ = nullptr;
}

void InputChannel::notify() {
  if (const auto changed = changed_; changed) changed();
}

}  // namespace hull::guest
