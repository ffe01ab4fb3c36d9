// IoEngine on io_uring(7). The ring is made before the jail and restricted for good to the four
// operations that disks need (IORING_REGISTER_RESTRICTIONS), because system call filters do not see
// what a ring does. Completions arrive through the event loop.
//
// Owner and threads: io_engine.h.
#pragma once

#include <liburing.h>

#include <deque>

#include "vmm/virtio/block/io_engine.h"

namespace hull::vmm::virtio {

class UringEngine final : public IoEngine {
 public:
  static constexpr unsigned kEntries = 256;
  static constexpr unsigned kMaxInFlight = 2 * kEntries;  // the size of the completion ring

  // Throws hull::Error when there is no io_uring, or none that can be restricted (Linux 5.10).
  explicit UringEngine(EventLoop& loop);
  ~UringEngine() override;

  const char* name() const noexcept override { return "io_uring"; }
  void start(const std::optional<SeccompFilter>&) override {}
  void submit(IoOperation& operation) noexcept override;
  void kick() noexcept override;
  void drain() noexcept override;

 private:
  void restrict();
  void enqueueWaiting() noexcept;
  bool enqueue(IoOperation& operation) noexcept;
  void reap() noexcept;

  EventLoop& loop_;
  io_uring ring_{};
  unsigned in_flight_ = 0;            // in the ring or under way
  std::deque<IoOperation*> waiting_;  // for a place
  IoReports reports_;
};

}  // namespace hull::vmm::virtio
