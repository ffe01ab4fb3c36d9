#include "daemon/api/disconnect_watch.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/error.h"

namespace hull::engine::api {

namespace {
constexpr uint64_t kStopKey = 0;

Fd checked(int fd, const char* what) {
  if (fd < 0) throw sysError(what);
  return Fd(fd);
}
}  // namespace

DisconnectWatch::DisconnectWatch()
    : epoll_(checked(epoll_create1(EPOLL_CLOEXEC), "create epoll")),
      stop_(checked(eventfd(0, EFD_CLOEXEC), "create eventfd")) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kStopKey;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_.get(), &event) != 0) {
    throw sysError("watch for the end");
  }
  thread_ = std::thread([this] { loop(); });
}

DisconnectWatch::~DisconnectWatch() {
  const uint64_t one = 1;
  writeFull(stop_.get(), std::as_bytes(std::span(&one, 1)));
  thread_.join();
}

std::shared_ptr<void> DisconnectWatch::watch(int fd, std::function<void()> gone) {
  const std::lock_guard lock(mutex_);
  const uint64_t key = next_++;
  Fd duplicate = checked(fcntl(fd, F_DUPFD_CLOEXEC, 3), "watch connection");
  epoll_event event{};
  event.events = 0;  // EPOLLHUP and EPOLLERR are always told
  event.data.u64 = key;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, duplicate.get(), &event) != 0) {
    throw sysError("watch connection");
  }
  entries_.emplace(key, Entry{std::move(duplicate), std::move(gone)});
  return {static_cast<void*>(this), [this, key](void*) { forget(key); }};
}

void DisconnectWatch::forget(uint64_t key) {
  const std::lock_guard lock(mutex_);  // held by loop() during a call
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry->second.duplicate.get(), nullptr);
  entries_.erase(entry);
}

void DisconnectWatch::loop() {
  for (;;) {
    epoll_event event{};
    if (epoll_wait(epoll_.get(), &event, 1, -1) < 1) continue;
    if (event.data.u64 == kStopKey) return;
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(event.data.u64);
    if (entry == entries_.end()) continue;  // forgotten meanwhile
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry->second.duplicate.get(), nullptr);
    if (auto gone = std::exchange(entry->second.gone, nullptr)) gone();
  }
}

}  // namespace hull::engine::api
