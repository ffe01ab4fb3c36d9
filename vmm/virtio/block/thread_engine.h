// IoEngine on a few threads that block in preadv(2) and its like. They exist from start() on and
// run under a system call filter of their own; operations start in the order of submission.
//
// Owner and threads: io_engine.h.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/fd.h"
#include "vmm/virtio/block/io_engine.h"

namespace hull::vmm::virtio {

class ThreadEngine final : public IoEngine {
 public:
  static constexpr size_t kThreads = 4;

  explicit ThreadEngine(EventLoop& loop);
  ~ThreadEngine() override;

  const char* name() const noexcept override { return "threads"; }
  void start(const std::optional<SeccompFilter>& filter) override;
  void submit(IoOperation& operation) noexcept override;
  void kick() noexcept override;
  void drain() noexcept override;

 private:
  void work() noexcept;
  bool report() noexcept;

  EventLoop& loop_;
  Fd done_event_;
  std::vector<std::thread> threads_;
  std::vector<IoOperation*> submitted_;  // device thread: until kick()
  size_t in_flight_ = 0;                 // device thread: kicked, not reported
  IoReports reports_;

  std::mutex mutex_;  // guards the rest
  std::condition_variable work_arrived_, work_done_;
  std::deque<IoOperation*> queue_;
  std::vector<IoOperation*> done_;
  bool closing_ = false;
};

}  // namespace hull::vmm::virtio
