// An EventLoop with its thread: the network's DNS forwarder and port relays live on one. run() is
// for any other thread: it does `work` on the loop's thread and waits for it.
#pragma once

#include <future>
#include <thread>
#include <utility>

#include "base/event_loop.h"

namespace hull::engine {

class LoopThread {
 public:
  LoopThread() : thread_([this] { loop_.run(); }) {}
  ~LoopThread() {
    loop_.stop();
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  EventLoop& loop() { return loop_; }  // its objects are made and destroyed within run()

  template <typename Work>
  auto run(Work&& work) -> decltype(work()) {
    std::packaged_task<decltype(work())()> task(std::forward<Work>(work));
    auto result = task.get_future();
    loop_.post([&task] { task(); });
    return result.get();
  }

 private:
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace hull::engine
