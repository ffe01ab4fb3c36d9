// Running, pausing and stopping all vCPUs of a VM together. A vCPU thread leaves KVM_RUN when it is
// kicked: `immediate_exit` for the moment before it enters, a signal for the time inside.
//
// Owner: Machine. pause/resume/stop from any thread; park() from vCPU threads.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace hull::vmm {

class VcpuGroup {
 public:
  enum class Mode { kRun, kPause, kStop };

  // `on_parked` is called by the last vCPU thread to stop for a pause.
  VcpuGroup(uint32_t vcpus, std::function<void()> on_parked);

  // Before any thread is started: the kick signal interrupts and does nothing else.
  static void installSignalHandler();

  // Each vCPU thread, once, before it runs.
  void join(uint32_t index, pthread_t thread, uint8_t* immediate_exit) noexcept;

  void pause() noexcept;
  void resume() noexcept;
  void stop() noexcept;
  bool stopping() const noexcept { return mode_.load() == Mode::kStop; }

  // vCPU thread, out of KVM_RUN because of a kick: waits while paused; false: end the thread.
  bool park(uint32_t index) noexcept;

 private:
  struct Member {
    pthread_t thread{};
    uint8_t* immediate_exit = nullptr;
  };
  void change(Mode mode) noexcept;
  void kickAll() noexcept;

  std::function<void()> on_parked_;
  std::atomic<Mode> mode_ = Mode::kRun;
  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::vector<Member> members_;
  size_t parked_ = 0;
};

}  // namespace hull::vmm
