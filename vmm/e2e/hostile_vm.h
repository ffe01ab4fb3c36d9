// A hull-vmm under test whose guest is a program of a few KiB (hostile_guest.c).
// Test code; one thread.
#pragma once

#include "vmm/e2e/vmm_under_test.h"

namespace hull::vmm {

inline constexpr uint32_t kJailUid = 64124;

// A VM with the hostile guest, a disk of 'd's, a console and a control socket.
class HostileVm : public VmmUnderTest {
 public:
  void prepare() {
    guest_ = openFile(bin_ + "/vmm-hostile-guest", O_RDONLY);
    constexpr uint64_t kDiskBytes = 1 << 20;
    disk_ = readOnly(fileWith(std::string(kDiskBytes, 'd')));
    config_.memory_mib = 32;
    config_.kernel_fd = give(guest_.get());
    config_.early_serial = true;
    config_.disks = {{"disk", kDiskBytes, true, {{give(disk_.get()), 0, 0, kDiskBytes}}}};
    if (geteuid() == 0) config_.uid = config_.gid = kJailUid;
    giveOutputs(true);
    addControl();
  }

 private:
  Fd guest_, disk_;
};

}  // namespace hull::vmm
