#include "vmm/jail/seccomp.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>
#include <memory>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/kvm/lists.h"

namespace hull::vmm {

namespace {

// The lower 32 bits of an argument, which are all the kernel looks at in an int.
scmp_arg_cmp equals32(unsigned argument, uint32_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, UINT32_MAX, value};
}

class Rules {
 public:
  Rules() : context_(seccomp_init(SCMP_ACT_TRAP), seccomp_release) {
    if (!context_) throw Error(ErrorKind::kInternal, "seccomp: no memory");
    // Calls of other architectures have other numbers and no business here.
    check(seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
  }
  void allow(std::initializer_list<int> calls) {
    for (const int call : calls) check(seccomp_rule_add(context_.get(), SCMP_ACT_ALLOW, call, 0));
  }
  void allowWhen(int call, const scmp_arg_cmp& condition) {
    check(seccomp_rule_add_array(context_.get(), SCMP_ACT_ALLOW, call, 1, &condition));
  }
  // `kind` goes with every SIGSYS; libseccomp has no way to say so (seccomp(2), SECCOMP_RET_DATA).
  std::vector<sock_filter> compile(uint32_t kind) const {
    const Fd file = makeMemfd("seccomp");
    check(seccomp_export_bpf(context_.get(), file.get()));
    std::vector<sock_filter> program(fileSize(file.get()) / sizeof(sock_filter));
    preadFull(file.get(), std::as_writable_bytes(std::span(program)), 0);
    for (sock_filter& step : program) {
      if (step.code == (BPF_RET | BPF_K) && step.k == SECCOMP_RET_TRAP) step.k |= kind;
    }
    return program;
  }

 private:
  static void check(int result) {
    if (result < 0) throw sysError("build a system call filter", -result);
  }
  std::unique_ptr<void, void (*)(scmp_filter_ctx)> context_;
};

// Memory, locks, clocks and the end of a thread: the C library's own needs. Memory never becomes
// executable.
void allowRuntime(Rules& rules) {
  rules.allow({SCMP_SYS(futex),
               SCMP_SYS(munmap),
               SCMP_SYS(mremap),
               SCMP_SYS(brk),
               SCMP_SYS(madvise),
               SCMP_SYS(clock_gettime),
               SCMP_SYS(gettimeofday),
               SCMP_SYS(rt_sigreturn),
               SCMP_SYS(rt_sigprocmask),
               SCMP_SYS(sigaltstack),
               SCMP_SYS(restart_syscall),
               SCMP_SYS(sched_yield),
               SCMP_SYS(getpid),
               SCMP_SYS(gettid),
               SCMP_SYS(exit),
               SCMP_SYS(exit_group),
               SCMP_SYS(read),
               SCMP_SYS(write),
               SCMP_SYS(poll),
               SCMP_SYS(set_robust_list),
               SCMP_SYS(rseq)});
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  rules.allowWhen(SCMP_SYS(mmap), not_executable);
  rules.allowWhen(SCMP_SYS(mprotect), not_executable);
  // Kicks, and abort(): signals to ourselves only.
  const auto self = static_cast<uint32_t>(getpid());
  rules.allowWhen(SCMP_SYS(tgkill), equals32(0, self));
}

// Into files that came through the control socket: what KVM knows of the VM is read, never set.
void allowSaving(Rules& rules) {
  rules.allow({SCMP_SYS(pwrite64), SCMP_SYS(ftruncate)});
  for (const unsigned long request :
       {static_cast<unsigned long>(KVM_GET_MP_STATE), static_cast<unsigned long>(KVM_GET_REGS),
        static_cast<unsigned long>(KVM_GET_SREGS), kKvmGetXsave,
        static_cast<unsigned long>(KVM_GET_XCRS), static_cast<unsigned long>(KVM_GET_DEBUGREGS),
        static_cast<unsigned long>(KVM_GET_LAPIC), kKvmGetMsrs,
        static_cast<unsigned long>(KVM_GET_VCPU_EVENTS),
        static_cast<unsigned long>(KVM_GET_IRQCHIP), static_cast<unsigned long>(KVM_GET_CLOCK),
        static_cast<unsigned long>(KVM_KVMCLOCK_CTRL)}) {
    rules.allowWhen(SCMP_SYS(ioctl), equals32(1, static_cast<uint32_t>(request)));
  }
}

void allowDevices(Rules& rules) {
  rules.allow({SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(accept4),
               SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg),
               SCMP_SYS(shutdown), SCMP_SYS(close), SCMP_SYS(readv), SCMP_SYS(writev),
               SCMP_SYS(io_uring_enter), SCMP_SYS(getrandom), SCMP_SYS(nanosleep),
               SCMP_SYS(clock_nanosleep)});
  rules.allowWhen(SCMP_SYS(ioctl), equals32(1, TUNSETOFFLOAD));
  rules.allowWhen(SCMP_SYS(fcntl), equals32(1, F_GETFL));  // of files that a disk grows by
  allowSaving(rules);
}

void allowVcpu(Rules& rules) {
  rules.allowWhen(SCMP_SYS(ioctl), equals32(1, KVM_RUN));
}

void allowDiskIo(Rules& rules) {
  rules.allow({SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(fdatasync), SCMP_SYS(fallocate)});
}

}  // namespace

SeccompFilter::SeccompFilter(Kind kind) {
  Rules rules;
  allowRuntime(rules);
  switch (kind) {
    case Kind::kDevices:
      allowDevices(rules);
      break;
    case Kind::kVcpu:
      allowVcpu(rules);
      break;
    case Kind::kDiskIo:
      allowDiskIo(rules);
      break;
  }
  program_ = rules.compile(static_cast<uint32_t>(kind));
}

void SeccompFilter::applyToThisThread() const noexcept {
  const sock_fprog program{static_cast<unsigned short>(program_.size()),
                           const_cast<sock_filter*>(program_.data())};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) return;
  log::error("jail: the kernel refused a system call filter");
  _exit(EXIT_FAILURE);
}

}  // namespace hull::vmm
