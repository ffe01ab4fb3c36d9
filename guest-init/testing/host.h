// Where a TestMachine's hull-init runs: natively in namespaces of its own, or, when HULL_BIN and
// HULL_KERNEL are set and /dev/kvm works, as PID 1 of a virtual machine of hull-vmm. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/fd.h"

namespace hull::guest {

// The images are ext4; `folder` is the host's to use.
struct TestDisks {
  std::string folder;
  std::string root;
  std::string writable;
};

class TestHost {
 public:
  virtual ~TestHost() = default;
  virtual Fd connect(uint32_t port) = 0;
  virtual std::string rootDisk() const = 0;  // as the guest names it
  virtual std::string writableDisk() const = 0;
  // Waits for the end after PowerOff; how it ended: "poweroff" is right.
  virtual std::string waitForPowerOff() = 0;
};

std::string whyNoNativeHost();  // empty: it can run
bool wantsVmHost();
std::unique_ptr<TestHost> makeNativeHost(const TestDisks& disks);
std::unique_ptr<TestHost> makeVmHost(const TestDisks& disks);

}  // namespace hull::guest
