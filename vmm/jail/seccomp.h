// System call filters, one per kind of thread (libseccomp): what is not listed ends the process,
// with a word on what it was (violation.h). The lists are built once, before the threads start;
// applying one is a single prctl. Any thread; throws hull::Error while building.
#pragma once

#include <linux/filter.h>

#include <vector>

namespace hull::vmm {

class SeccompFilter {
 public:
  enum class Kind {
    kDevices,
    kVcpu,
    kDiskIo,  // the threads that read and write disks where there is no io_uring
  };
  explicit SeccompFilter(Kind kind);

  // For the rest of the thread's life. Needs no_new_privs. Ends the process when it fails: an
  // unfiltered thread must not run a guest.
  void applyToThisThread() const noexcept;

 private:
  std::vector<sock_filter> program_;
};

}  // namespace hull::vmm
