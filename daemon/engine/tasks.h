// Background work of the engine: each task a thread, all of them waited for at the end. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/log.h"

namespace hull::engine {

class TaskGroup {
 public:
  ~TaskGroup() { wait(); }

  void run(const std::string& name, std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      ++running_;
    }
    try {
      std::thread([this, name, work = std::move(work)]() mutable {
        try {
          work();
        } catch (const std::exception& error) {
          log::error(name + ": " + error.what());
        }
        work = nullptr;  // what it holds is gone before the group says so
        finished();
      }).detach();
    } catch (...) {
      finished();
      throw;
    }
  }

  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void finished() {
    const std::lock_guard lock(mutex_);
    --running_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t running_ = 0;
};

}  // namespace hull::engine
