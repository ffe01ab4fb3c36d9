// A device thread that is the caller's own: what is handed over runs at once, what is posted waits
// for runPosted(). Test code; one thread.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "vmm/virtio/mmio/transport.h"

namespace hull::vmm::virtio::testing {

class InlineThread final : public DeviceThread {
 public:
  bool runAndWait(const std::function<void()>& work) noexcept override {
    work();
    return true;
  }
  void post(std::function<void()> work) noexcept override { posted_.push_back(std::move(work)); }
  void runPosted() {
    for (auto& work : std::exchange(posted_, {})) work();
  }

 private:
  std::vector<std::function<void()>> posted_;
};

}  // namespace hull::vmm::virtio::testing
