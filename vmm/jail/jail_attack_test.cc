// What somebody who has taken hull-vmm over would try, from inside of the jail: a child process
// jails itself with the real code, and tries. Under its filter every attempt ends the process with
// a word on what it was; without the filter, as if it had a hole, the other walls must hold.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "base/fd.h"
#include "vmm/jail/jail.h"
#include "vmm/jail/seccomp.h"
#include "vmm/jail/violation.h"

namespace hull::vmm {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kJailUid = 64123;  // of nobody
constexpr int kAttackSucceeded = 77;
constexpr int kKeptFd = 200;  // the status pipe

pid_t parent = -1;  // of the attackers: they may not even ask

struct Attack {
  const char* name;
  const char* call;  // as the violation names it
  // True: the attacker got something. Raw calls: the C library must not do others on the way.
  bool (*succeeds)();
};

bool works(long result) {
  return result >= 0;
}

const std::vector<Attack>& attacks() {
  static const std::vector<Attack> kAttacks{
      {"OpenAFile", "openat",
       [] { return works(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)); }},
      {"OpenTheOldWay", "open", [] { return works(syscall(SYS_open, "/proc/self/mem", O_RDWR)); }},
      {"MakeAFile", "openat",
       [] { return works(syscall(SYS_openat, AT_FDCWD, "/x", O_CREAT | O_WRONLY, 0600)); }},
      {"LookForAFile", "newfstatat",
       [] {
         char space[256];
         return works(syscall(SYS_newfstatat, AT_FDCWD, "/etc", space, 0));
       }},
      {"RunAProgram", "execve",
       [] {
         const char* arguments[] = {"/bin/false", nullptr};
         return works(syscall(SYS_execve, arguments[0], arguments, nullptr));
       }},
      {"TraceTheParent", "ptrace",
       [] { return works(syscall(SYS_ptrace, PTRACE_ATTACH, parent, 0, 0)); }},
      {"ReadTheParentsMemory", "process_vm_readv",
       [] {
         char byte;
         const iovec here{&byte, 1}, there{reinterpret_cast<void*>(0x400000), 1};
         return works(syscall(SYS_process_vm_readv, parent, &here, 1, &there, 1, 0));
       }},
      {"SignalTheParent", "kill", [] { return works(syscall(SYS_kill, parent, 0)); }},
      {"SignalTheParentsThread", "tgkill",
       [] { return works(syscall(SYS_tgkill, parent, parent, 0)); }},
      {"Mount", "mount", [] { return works(mount("none", "/", "tmpfs", 0, nullptr)); }},
      {"BecomeRoot", "setresuid", [] { return works(syscall(SYS_setresuid, 0, 0, 0)); }},
      {"LeaveTheNetwork", "unshare", [] { return works(syscall(SYS_unshare, CLONE_NEWNET)); }},
      {"ChangeTheRoot", "chroot", [] { return works(syscall(SYS_chroot, "/")); }},
      {"LoadBpf", "bpf",
       [] {
         char attribute[128] = {};
         return works(syscall(SYS_bpf, 5, attribute, sizeof attribute));
       }},
  };
  return kAttacks;
}

// What only the filter prevents: harmless by itself, but the way to the kernel's less used parts.
const std::vector<Attack>& attacksOnTheKernel() {
  static const std::vector<Attack> kAttacks{
      {"OpenAnInternetSocket", "socket",
       [] { return works(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)); }},
      {"OpenAUnixSocket", "socket",
       [] { return works(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0)); }},
      {"StartAProcess", "clone", [] { return works(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }},
      {"StartAThread", "clone3",
       [] {
         char arguments[88] = {};
         return works(syscall(SYS_clone3, arguments, sizeof arguments));
       }},
      {"MapExecutableMemory", "mmap",
       [] {
         return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                MAP_FAILED;
       }},
      {"MapWritableExecutableMemory", "mmap",
       [] {
         return mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0) != MAP_FAILED;
       }},
      {"MakeMemoryExecutable", "mprotect",
       [] {
         static char page[8192];
         auto* start = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(page + 4095) & ~4095ul);
         return works(mprotect(start, 4096, PROT_READ | PROT_EXEC));
       }},
      {"SetUpIoUring", "io_uring_setup",
       [] {
         char parameters[120] = {};
         return works(syscall(SYS_io_uring_setup, 8, parameters));
       }},
      {"PushTerminalInput", "ioctl", [] { return works(ioctl(0, TIOCSTI, "x")); }},
      {"MakeAVirtualMachine", "ioctl", [] { return works(ioctl(0, KVM_CREATE_VM, 0)); }},
      {"GiveAVmOtherMemory", "ioctl",
       [] { return works(ioctl(0, KVM_SET_USER_MEMORY_REGION, nullptr)); }},
      {"ChangeAVcpu", "ioctl", [] { return works(ioctl(0, KVM_SET_SREGS, nullptr)); }},
      {"ChangeATap", "ioctl", [] { return works(ioctl(0, TUNSETIFF, nullptr)); }},
      {"ChangeASignalHandler", "rt_sigaction",
       [] { return works(syscall(SYS_rt_sigaction, SIGSYS, nullptr, nullptr, 8)); }},
      {"ChangeItsOwnAttributes", "prctl", [] { return works(prctl(PR_SET_DUMPABLE, 1)); }},
      {"WatchPageFaults", "userfaultfd", [] { return works(syscall(SYS_userfaultfd, 0)); }},
      {"CountPerformance", "perf_event_open",
       [] { return works(syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0)); }},
      {"UseKeys", "keyctl", [] { return works(syscall(SYS_keyctl, 0, 0, 0)); }},
      {"MakeAnAnonymousFile", "memfd_create", [] { return works(memfd_create("x", 0)); }},
      {"MakeAUserNamespace", "unshare", [] { return works(syscall(SYS_unshare, CLONE_NEWUSER)); }},
  };
  return kAttacks;
}

struct Outcome {
  int status = 0;  // as waitpid gives it
  std::string said;
};

// Jails a child, under the filter of `kind` if there is one, and lets it try.
Outcome tryIt(const std::function<bool()>& attack, std::optional<SeccompFilter::Kind> kind) {
  FdPair pipe = makePipe();
  parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    try {
      dup2(pipe.second.get(), kKeptFd);
      const SeccompFilter filter(kind.value_or(SeccompFilter::Kind::kDevices));
      closeUnknownDescriptors({kKeptFd});
      dup2(STDIN_FILENO, STDERR_FILENO);  // the test's own output stays readable
      reportViolations(kKeptFd);
      enterJail(geteuid() == 0 ? kJailUid : 0, geteuid() == 0 ? kJailUid : 0);
      if (kind) filter.applyToThisThread();
    } catch (const std::exception& error) {
      [[maybe_unused]] const ssize_t put = write(kKeptFd, error.what(), std::strlen(error.what()));
      _exit(1);
    }
    _exit(attack() ? kAttackSucceeded : 0);
  }
  pipe.second.reset();
  Outcome outcome;
  std::string text(4096, '\0');
  text.resize(readFull(pipe.first.get(), std::as_writable_bytes(std::span(text))));
  outcome.said = text;
  waitpid(child, &outcome.status, 0);
  return outcome;
}

bool mayMakeNamespaces() {
  const pid_t child = fork();
  if (child == 0) _exit(unshare(CLONE_NEWNS | CLONE_NEWNET) == 0 ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0;
}

struct Case {
  const Attack* attack;
  SeccompFilter::Kind kind;
};
std::vector<Case> filteredCases() {
  std::vector<Case> cases;
  for (const auto* list : {&attacks(), &attacksOnTheKernel()}) {
    for (const Attack& attack : *list) {
      for (const auto kind : {SeccompFilter::Kind::kDevices, SeccompFilter::Kind::kVcpu,
                              SeccompFilter::Kind::kDiskIo}) {
        cases.push_back({&attack, kind});
      }
    }
  }
  return cases;
}

struct KindNames {
  const char* test;
  const char* said;
};
KindNames namesOf(SeccompFilter::Kind kind) {
  switch (kind) {
    case SeccompFilter::Kind::kDevices:
      return {"Devices", "the device thread"};
    case SeccompFilter::Kind::kVcpu:
      return {"Vcpu", "a vCPU thread"};
    case SeccompFilter::Kind::kDiskIo:
      break;
  }
  return {"DiskIo", "a disk thread"};
}

class JailAttack : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Filtered, JailAttack, ::testing::ValuesIn(filteredCases()),
                         [](const auto& each) {
                           return std::string(namesOf(each.param.kind).test) +
                                  each.param.attack->name;
                         });

TEST_P(JailAttack, EndsTheProcessAndSaysWhatItWas) {
  if (geteuid() == 0 && !mayMakeNamespaces()) GTEST_SKIP() << "may not make namespaces here";
  const auto& [attack, kind] = GetParam();
  const Outcome outcome = tryIt(attack->succeeds, kind);
  ASSERT_TRUE(WIFEXITED(outcome.status)) << outcome.status << " " << outcome.said;
  EXPECT_EQ(WEXITSTATUS(outcome.status), kViolationExitStatus) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr(std::string(R"({"reason":"error","detail":"jail: )") +
                                      namesOf(kind).said + " called " + attack->call + " ("));
}

class JailWithoutFilter : public ::testing::TestWithParam<const Attack*> {};
std::vector<const Attack*> unfilteredCases() {
  std::vector<const Attack*> cases;
  for (const Attack& attack : attacks()) cases.push_back(&attack);
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Walls, JailWithoutFilter, ::testing::ValuesIn(unfilteredCases()),
                         [](const auto& each) { return std::string(each.param->name); });

TEST_P(JailWithoutFilter, TheOtherWallsHold) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  if (!mayMakeNamespaces()) GTEST_SKIP() << "may not make namespaces here";
  const Outcome outcome = tryIt(GetParam()->succeeds, std::nullopt);
  ASSERT_TRUE(WIFEXITED(outcome.status)) << outcome.status;
  EXPECT_EQ(WEXITSTATUS(outcome.status), 0) << outcome.said;
}

// Sockets may be made, but lead nowhere.
TEST(JailNetwork, ReachesNobodyOnTheHost) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  if (!mayMakeNamespaces()) GTEST_SKIP() << "may not make namespaces here";
  const Fd internet(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(internet.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(internet.get(), 1), 0);
  ASSERT_EQ(getsockname(internet.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  const Fd local(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un abstract{};
  abstract.sun_family = AF_UNIX;
  ASSERT_EQ(bind(local.get(), reinterpret_cast<sockaddr*>(&abstract), sizeof(sa_family_t)), 0);
  ASSERT_EQ(listen(local.get(), 1), 0);
  socklen_t abstract_length = sizeof abstract;
  ASSERT_EQ(getsockname(local.get(), reinterpret_cast<sockaddr*>(&abstract), &abstract_length), 0);
  const Outcome outcome = tryIt(
      [&] {
        const int first = socket(AF_INET, SOCK_STREAM, 0);
        const int second = socket(AF_UNIX, SOCK_STREAM, 0);
        return connect(first, reinterpret_cast<sockaddr*>(&address), length) == 0 ||
               connect(second, reinterpret_cast<sockaddr*>(&abstract), abstract_length) == 0;
      },
      std::nullopt);
  ASSERT_TRUE(WIFEXITED(outcome.status)) << outcome.status;
  EXPECT_EQ(WEXITSTATUS(outcome.status), 0) << outcome.said;
}

// A call of 32-bit programs: getpid there, writev by our numbers.
bool callAs32Bit() {
  long result = 20;
  asm volatile("int $0x80" : "+a"(result)::"memory");
  return true;
}

// Calls of other architectures have other numbers: the filter must not mistake them.
TEST(JailAttackByOtherNumbers, IsKilled) {
  // A host that has no calls of 32-bit programs faults, filter or not.
  const bool has_32_bit = WIFEXITED(tryIt(callAs32Bit, std::nullopt).status);
  for (const auto kind : {SeccompFilter::Kind::kDevices, SeccompFilter::Kind::kVcpu}) {
    const Outcome compat = tryIt(callAs32Bit, kind);
    ASSERT_TRUE(WIFSIGNALED(compat.status)) << compat.status;
    EXPECT_EQ(WTERMSIG(compat.status), has_32_bit ? SIGSYS : SIGSEGV);
    constexpr long kX32 = 0x40000000;
    const Outcome x32 = tryIt([] { return works(syscall(kX32 | SYS_getpid)); }, kind);
    EXPECT_FALSE(WIFEXITED(x32.status) && WEXITSTATUS(x32.status) == kAttackSucceeded);
  }
}

// Who blocks the signal is killed all the same.
TEST(JailAttackBySignals, BlockedViolationKills) {
  const Outcome outcome = tryIt(
      [] {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, nullptr);
        return works(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY));
      },
      SeccompFilter::Kind::kDevices);
  EXPECT_TRUE(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGSYS) << outcome.said;
}

TEST(Violation, NamesThreadCallAndArguments) {
  std::array<char, 256> space;
  EXPECT_EQ(describe({0, SYS_openat, {1, 0xabc, 0}}, space),
            "jail: the device thread called openat (257) with 0x1, 0xabc, 0x0, which its system "
            "call filter forbids");
  EXPECT_EQ(describe({1, 9999, {0, 0, UINT64_MAX}}, space),
            "jail: a vCPU thread called system call (9999) with 0x0, 0x0, 0xffffffffffffffff, "
            "which its system call filter forbids");
  std::array<char, 10> little;
  EXPECT_EQ(describe({0, SYS_openat, {}}, little), "jail: the ");
}

}  // namespace
}  // namespace hull::vmm
