#include "vmm/loop_thread.h"

namespace hull::vmm {

// `work` refers to the caller's stack. It runs under the mutex, and not at all once the caller has
// given up, so it never outlives the wait.
bool LoopThread::runAndWait(const std::function<void()>& work) noexcept {
  struct Ticket {
    bool abandoned = false;
    bool done = false;
  };
  const auto ticket = std::make_shared<Ticket>();
  std::unique_lock lock(mutex_);
  if (closed_) return false;
  loop_.post([this, ticket, &work] {
    const std::lock_guard inner(mutex_);
    if (ticket->abandoned) return;
    work();
    ticket->done = true;
    changed_.notify_all();
  });
  changed_.wait(lock, [&] { return ticket->done || closed_; });
  ticket->abandoned = true;
  return ticket->done;
}

void LoopThread::close() noexcept {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace hull::vmm
