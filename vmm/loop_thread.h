// The device thread as the transports see it: work handed to the event loop from vCPU threads,
// waited for or not. After close(), nobody waits any more.
//
// Owner: Machine. Any thread; close() on the loop's own thread when it has stopped running.
#pragma once

#include <condition_variable>
#include <mutex>

#include "base/event_loop.h"
#include "vmm/virtio/mmio/transport.h"

namespace hull::vmm {

class LoopThread final : public virtio::DeviceThread {
 public:
  explicit LoopThread(EventLoop& loop) : loop_(loop) {}

  bool runAndWait(const std::function<void()>& work) noexcept override;
  void post(std::function<void()> work) noexcept override { loop_.post(std::move(work)); }
  void close() noexcept;

 private:
  EventLoop& loop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;  // guarded by mutex_
};

}  // namespace hull::vmm
