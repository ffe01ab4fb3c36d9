#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/error.h"

namespace hull {

namespace {
constexpr size_t kEventsPerWait = 64;
}

EventLoop::EventLoop()
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), wakeup_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wakeup_) throw sysError("create event loop");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wakeup_.get();
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.get(), &event) < 0) {
    throw sysError("create event loop");
  }
}

EventLoop::~EventLoop() = default;

void EventLoop::add(int fd, uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) throw sysError("watch descriptor");
  watches_[fd] = std::make_shared<Watch>(Watch{std::move(handler), next_generation_++});
}

void EventLoop::modify(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0) throw sysError("watch descriptor");
}

void EventLoop::remove(int fd) {
  if (watches_.erase(fd) != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::after(std::chrono::milliseconds delay, Task task) {
  const TimerId id = next_timer_++;
  timers_.emplace(Clock::now() + delay, std::pair(id, std::move(task)));
  return id;
}

void EventLoop::cancel(TimerId id) {
  const auto found = std::find_if(timers_.begin(), timers_.end(),
                                  [id](const auto& entry) { return entry.second.first == id; });
  if (found != timers_.end()) timers_.erase(found);
}

void EventLoop::run() {
  while (runOnce(std::chrono::milliseconds::max())) {
  }
}

bool EventLoop::runOnce(std::chrono::milliseconds timeout) {
  if (stopped_) return false;
  std::array<epoll_event, kEventsPerWait> events;
  const int count =
      epoll_wait(epoll_.get(), events.data(), kEventsPerWait, waitMilliseconds(timeout));
  if (count < 0 && errno != EINTR) throw sysError("wait for events");
  // A handler may remove a descriptor whose number is reused within this batch: the generation
  // seen before the batch tells the old watch from the new one.
  std::array<uint64_t, kEventsPerWait> generations{};
  for (int i = 0; i < count; ++i) {
    const auto found = watches_.find(events[static_cast<size_t>(i)].data.fd);
    if (found != watches_.end()) generations[static_cast<size_t>(i)] = found->second->generation;
  }
  for (int i = 0; i < count && !stopped_; ++i) {
    const auto& event = events[static_cast<size_t>(i)];
    if (event.data.fd == wakeup_.get()) {
      uint64_t ignored;
      while (::read(wakeup_.get(), &ignored, sizeof ignored) > 0) {
      }
      runPosted();
    } else {
      dispatch(event.data.fd, generations[static_cast<size_t>(i)], event.events);
    }
  }
  if (!stopped_) runTimers();
  return !stopped_;
}

void EventLoop::dispatch(int fd, uint64_t generation, uint32_t events) {
  const auto found = watches_.find(fd);
  if (found == watches_.end() || found->second->generation != generation) return;
  const std::shared_ptr<Watch> watch = found->second;  // outlives its own removal
  watch->handler(events);
}

int EventLoop::waitMilliseconds(std::chrono::milliseconds limit) const {
  using std::chrono::milliseconds;
  if (!timers_.empty()) {
    const auto until = std::chrono::ceil<milliseconds>(timers_.begin()->first - Clock::now());
    limit = std::clamp(until, milliseconds::zero(), limit);
  }
  if (limit == milliseconds::max()) return -1;
  return static_cast<int>(std::min<int64_t>(limit.count(), 1 << 30));
}

void EventLoop::runTimers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now && !stopped_) {
    const Task task = std::move(timers_.begin()->second.second);
    timers_.erase(timers_.begin());
    task();
  }
}

void EventLoop::runPosted() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(posted_mutex_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) task();
}

void EventLoop::stop() {
  stopped_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(wakeup_.get(), &one, sizeof one);
}

void EventLoop::post(Task task) {
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(wakeup_.get(), &one, sizeof one);
}

}  // namespace hull
