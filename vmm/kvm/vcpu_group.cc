#include "vmm/kvm/vcpu_group.h"

#include <signal.h>

#include "base/error.h"

namespace hull::vmm {

namespace {

int kickSignal() {
  return SIGRTMIN;
}

void setImmediateExit(uint8_t* flag, uint8_t value) {
  if (flag != nullptr) std::atomic_ref(*flag).store(value);
}

}  // namespace

VcpuGroup::VcpuGroup(uint32_t vcpus, std::function<void()> on_parked)
    : on_parked_(std::move(on_parked)), members_(vcpus) {}

void VcpuGroup::installSignalHandler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART: KVM_RUN returns EINTR
  if (sigaction(kickSignal(), &action, nullptr) < 0) throw sysError("install the kick signal");
}

void VcpuGroup::join(uint32_t index, pthread_t thread, uint8_t* immediate_exit) noexcept {
  const std::lock_guard lock(mutex_);
  members_[index] = {thread, immediate_exit};
  if (mode_.load() != Mode::kRun) setImmediateExit(immediate_exit, 1);
}

void VcpuGroup::kickAll() noexcept {
  for (const Member& member : members_) {
    if (member.immediate_exit == nullptr) continue;
    setImmediateExit(member.immediate_exit, 1);
    pthread_kill(member.thread, kickSignal());
  }
}

void VcpuGroup::change(Mode mode) noexcept {
  const std::lock_guard lock(mutex_);
  if (mode_.load() == Mode::kStop || mode_.load() == mode) return;
  mode_.store(mode);
  if (mode == Mode::kRun) parked_ = 0;
  changed_.notify_all();
  if (mode != Mode::kRun) kickAll();
}

void VcpuGroup::pause() noexcept {
  change(Mode::kPause);
}
void VcpuGroup::resume() noexcept {
  change(Mode::kRun);
}
void VcpuGroup::stop() noexcept {
  change(Mode::kStop);
}

// The flag is cleared before the mode is looked at, and a kick sets them in the opposite order:
// one of the two is always seen.
bool VcpuGroup::park(uint32_t index) noexcept {
  std::unique_lock lock(mutex_);
  setImmediateExit(members_[index].immediate_exit, 0);
  if (mode_.load() == Mode::kPause) {
    if (++parked_ == members_.size()) on_parked_();
    changed_.wait(lock, [this] { return mode_.load() != Mode::kPause; });
  }
  if (mode_.load() != Mode::kStop) return true;
  // From here on the thread may be gone at any moment: nobody signals it again.
  members_[index].immediate_exit = nullptr;
  return false;
}

}  // namespace hull::vmm
