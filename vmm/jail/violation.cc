#include "vmm/jail/violation.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "base/error.h"

namespace hull::vmm {

namespace {

std::atomic<int> status_descriptor = -1;

struct NamedCall {
  int64_t number;
  std::string_view name;
};
// What people look for in such a message; others are told by their number.
constexpr NamedCall kNames[] = {
    {SYS_open, "open"},
    {SYS_openat, "openat"},
    {SYS_openat2, "openat2"},
    {SYS_creat, "creat"},
    {SYS_stat, "stat"},
    {SYS_newfstatat, "newfstatat"},
    {SYS_fstat, "fstat"},
    {SYS_lseek, "lseek"},
    {SYS_fcntl, "fcntl"},
    {SYS_socket, "socket"},
    {SYS_socketpair, "socketpair"},
    {SYS_connect, "connect"},
    {SYS_bind, "bind"},
    {SYS_listen, "listen"},
    {SYS_execve, "execve"},
    {SYS_execveat, "execveat"},
    {SYS_fork, "fork"},
    {SYS_vfork, "vfork"},
    {SYS_clone, "clone"},
    {SYS_clone3, "clone3"},
    {SYS_ptrace, "ptrace"},
    {SYS_process_vm_readv, "process_vm_readv"},
    {SYS_process_vm_writev, "process_vm_writev"},
    {SYS_kill, "kill"},
    {SYS_tkill, "tkill"},
    {SYS_tgkill, "tgkill"},
    {SYS_rt_sigaction, "rt_sigaction"},
    {SYS_mmap, "mmap"},
    {SYS_mprotect, "mprotect"},
    {SYS_pkey_mprotect, "pkey_mprotect"},
    {SYS_ioctl, "ioctl"},
    {SYS_io_uring_setup, "io_uring_setup"},
    {SYS_io_uring_enter, "io_uring_enter"},
    {SYS_io_uring_register, "io_uring_register"},
    {SYS_bpf, "bpf"},
    {SYS_perf_event_open, "perf_event_open"},
    {SYS_userfaultfd, "userfaultfd"},
    {SYS_memfd_create, "memfd_create"},
    {SYS_mount, "mount"},
    {SYS_umount2, "umount2"},
    {SYS_pivot_root, "pivot_root"},
    {SYS_chroot, "chroot"},
    {SYS_unshare, "unshare"},
    {SYS_setns, "setns"},
    {SYS_setuid, "setuid"},
    {SYS_setresuid, "setresuid"},
    {SYS_capset, "capset"},
    {SYS_prctl, "prctl"},
    {SYS_seccomp, "seccomp"},
    {SYS_keyctl, "keyctl"},
    {SYS_init_module, "init_module"},
    {SYS_pidfd_open, "pidfd_open"},
    {SYS_pidfd_getfd, "pidfd_getfd"},
    {SYS_open_by_handle_at, "open_by_handle_at"},
};

// Appends to a fixed space; what does not fit is left out.
class Text {
 public:
  explicit Text(std::span<char> space) : space_(space) {}
  Text& add(std::string_view text) noexcept {
    const size_t part = std::min(text.size(), space_.size() - used_);
    std::copy_n(text.begin(), part, space_.begin() + static_cast<ptrdiff_t>(used_));
    used_ += part;
    return *this;
  }
  Text& number(uint64_t value, unsigned base) noexcept {
    std::array<char, 20> digits;
    size_t at = digits.size();
    do {
      digits[--at] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    return add({digits.data() + at, digits.size() - at});
  }
  std::string_view view() const noexcept { return {space_.data(), used_}; }

 private:
  std::span<char> space_;
  size_t used_ = 0;
};

std::string_view kindName(uint32_t kind) {
  constexpr std::array<std::string_view, 3> kKinds{"the device thread", "a vCPU thread",
                                                   "a disk thread"};
  return kind < kKinds.size() ? kKinds[kind] : "a thread";
}

void put(int fd, std::string_view text) noexcept {
  [[maybe_unused]] const ssize_t written = ::write(fd, text.data(), text.size());
}

// SECCOMP_RET_TRAP (seccomp(2)): si_syscall is the call, si_errno the filter's own data.
void onViolation(int, siginfo_t* info, void* context) {
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  const Violation violation{
      static_cast<uint32_t>(info->si_errno),
      info->si_syscall,
      {static_cast<uint64_t>(registers[REG_RDI]), static_cast<uint64_t>(registers[REG_RSI]),
       static_cast<uint64_t>(registers[REG_RDX])}};
  std::array<char, 256> detail_space;
  const std::string_view detail = describe(violation, detail_space);
  std::array<char, 320> space;
  put(STDERR_FILENO, Text(space).add("hull-vmm: ").add(detail).add("\n").view());
  const int status = status_descriptor.load();
  // The text holds nothing that JSON would want escaped.
  if (status >= 0) {
    put(status, Text(space).add(R"({"reason":"error","detail":")").add(detail).add("\"}\n").view());
  }
  _exit(kViolationExitStatus);
}

}  // namespace

std::string_view describe(const Violation& violation, std::span<char> space) noexcept {
  Text text(space);
  text.add("jail: ").add(kindName(violation.thread_kind)).add(" called ");
  const auto known = std::find_if(std::begin(kNames), std::end(kNames), [&](const NamedCall& call) {
    return call.number == violation.call;
  });
  if (known != std::end(kNames)) text.add(known->name).add(" ");
  text.add(known != std::end(kNames) ? "(" : "system call (");
  text.number(static_cast<uint64_t>(violation.call), 10).add(") with ");
  for (size_t i = 0; i < std::size(violation.arguments); ++i) {
    text.add(i == 0 ? "0x" : ", 0x").number(violation.arguments[i], 16);
  }
  return text.add(", which its system call filter forbids").view();
}

void reportViolations(int status_fd) {
  status_descriptor = status_fd;
  struct sigaction action {};
  action.sa_sigaction = onViolation;
  action.sa_flags = SA_SIGINFO;
  if (sigaction(SIGSYS, &action, nullptr) < 0) throw sysError("watch for forbidden system calls");
}

}  // namespace hull::vmm
