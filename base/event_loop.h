// A single-threaded epoll loop: descriptors, timers, and work posted from other threads. The VMM's
// device thread and hull-init run on one each. Everything but post() and stop() belongs to the
// thread that calls run(). Handlers may add and remove anything, themselves included.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/fd.h"

namespace hull {

class EventLoop {
 public:
  using Handler = std::function<void(uint32_t epoll_events)>;
  using Task = std::function<void()>;
  using Clock = std::chrono::steady_clock;
  using TimerId = uint64_t;

  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Level-triggered; `events` are EPOLLIN | EPOLLOUT | …; 0 watches for EPOLLHUP and EPOLLERR only.
  // The caller keeps `fd` open until remove(fd).
  void add(int fd, uint32_t events, Handler handler);
  void modify(int fd, uint32_t events);
  void remove(int fd);
  bool watches(int fd) const { return watches_.contains(fd); }

  TimerId after(std::chrono::milliseconds delay, Task task);
  void cancel(TimerId id);

  void run();                                       // until stop()
  bool runOnce(std::chrono::milliseconds timeout);  // false when stopped
  void stop();                                      // any thread, and signal handlers
  void post(Task task);                             // any thread

 private:
  struct Watch {
    Handler handler;
    uint64_t generation;
  };
  void dispatch(int fd, uint64_t generation, uint32_t events);
  int waitMilliseconds(std::chrono::milliseconds limit) const;
  void runTimers();
  void runPosted();

  Fd epoll_;
  Fd wakeup_;
  std::unordered_map<int, std::shared_ptr<Watch>> watches_;
  uint64_t next_generation_ = 1;
  std::multimap<Clock::time_point, std::pair<TimerId, Task>> timers_;
  TimerId next_timer_ = 1;
  std::mutex posted_mutex_;
  std::vector<Task> posted_;  // guarded by posted_mutex_
  std::atomic<bool> stopped_ = false;
};

}  // namespace hull
