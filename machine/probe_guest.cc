// The probe guest: the instructions of a kernel's first milliseconds that hosts without hardware
// virtualization get wrong. It runs at privilege level 0 in long mode: atomic 16-byte exchange,
// SSE, FXSAVE, XSAVE/XRSTOR, control register and MSR access, then says so through a port.
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/fd.h"
#include "machine/detect.h"

namespace hull::machine {

namespace {

constexpr int kProbeTimeoutMilliseconds = 3000;
constexpr size_t kGuestBytes = 1 << 20;
constexpr uint64_t kPageTablesAt = 0x1000;  // three pages: 4-level tables with one 2 MiB page
constexpr uint64_t kDataAt = 0x8000;        // 64-byte aligned save areas
constexpr uint64_t kCodeAt = 0x10000;
constexpr uint64_t kStackAt = 0xf000;
constexpr uint16_t kReportPort = 0x600;
constexpr uint8_t kReportDone = 0xa5;

// Assembled by hand (comments give the source); a mistake in it would fail where KVM works, which
// the test in an emulated host would show.
constexpr uint8_t kCode[] = {
    0xbf, 0x00, 0x80, 0x00, 0x00,              // mov edi, kDataAt
    0x31, 0xc0, 0x31, 0xd2,                    // xor eax,eax; xor edx,edx
    0xbb, 0x78, 0x56, 0x34, 0x12,              // mov ebx, 0x12345678
    0xb9, 0x01, 0x00, 0x00, 0x00,              // mov ecx, 1
    0xf0, 0x48, 0x0f, 0xc7, 0x0f,              // lock cmpxchg16b [rdi]
    0x75, 0x6c,                                // jnz fail
    0x81, 0x3f, 0x78, 0x56, 0x34, 0x12,        // cmp dword [rdi], 0x12345678
    0x75, 0x64,                                // jne fail
    0x0f, 0x20, 0xe0,                          // mov rax, cr4
    0x0d, 0x00, 0x06, 0x00, 0x00,              // or eax, OSFXSR | OSXMMEXCPT
    0x0f, 0x22, 0xe0,                          // mov cr4, rax
    0x66, 0x0f, 0xef, 0xc0,                    // pxor xmm0, xmm0
    0x0f, 0xae, 0x87, 0x00, 0x04, 0x00, 0x00,  // fxsave [rdi+0x400]
    0x0f, 0xae, 0x8f, 0x00, 0x04, 0x00, 0x00,  // fxrstor [rdi+0x400]
    0xb8, 0x01, 0x00, 0x00, 0x00,              // mov eax, 1
    0x31, 0xc9,                                // xor ecx, ecx
    0x0f, 0xa2,                                // cpuid
    0x0f, 0xba, 0xe1, 0x1a,                    // bt ecx, 26 (XSAVE)
    0x73, 0x29,                                // jnc msr
    0x0f, 0x20, 0xe0,                          // mov rax, cr4
    0x0d, 0x00, 0x00, 0x04, 0x00,              // or eax, OSXSAVE
    0x0f, 0x22, 0xe0,                          // mov cr4, rax
    0x31, 0xc9,                                // xor ecx, ecx
    0x0f, 0x01, 0xd0,                          // xgetbv
    0x83, 0xc8, 0x03,                          // or eax, x87 | SSE
    0x0f, 0x01, 0xd1,                          // xsetbv
    0xbf, 0x00, 0x90, 0x00, 0x00,              // mov edi, kDataAt + 0x1000
    0x0f, 0xae, 0x27,                          // xsave [rdi]
    0x0f, 0xae, 0x2f,                          // xrstor [rdi]
    0xbf, 0x00, 0x80, 0x00, 0x00,              // mov edi, kDataAt
    0x90, 0x90, 0x90,                          // nop ×3
    // msr:
    0xb9, 0x80, 0x00, 0x00, 0xc0,  // mov ecx, EFER
    0x0f, 0x32,                    // rdmsr
    0x0f, 0x30,                    // wrmsr
    0x0f, 0x31,                    // rdtsc
    0xb0, 0xa5,                    // mov al, kReportDone
    0xeb, 0x02,                    // jmp report
    // fail:
    0xb0, 0x00,  // mov al, 0
    // report:
    0x66, 0xba, 0x00, 0x06,  // mov dx, kReportPort
    0xee,                    // out dx, al
    0xf4,                    // hlt
};

// The kernel's header declares kvm_cpuid2 with a flexible array that takes space in C++, which
// makes the size in these request numbers wrong there; the real one is 8 (nent, padding).
constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
constexpr unsigned long kSetCpuid = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);

struct Failure {
  char text[160] = {};
};

// A child process: whatever the host's KVM does to it, the caller goes on.
class Guest {
 public:
  explicit Guest(const char* device) : kvm_(::open(device, O_RDWR | O_CLOEXEC)) {}

  // Nullptr, or what went wrong.
  const char* run() {
    if (!kvm_) return "open the device";
    if (ioctl(kvm_.get(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION) return "KVM's version";
    vm_.reset(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
    if (!vm_) return "create a virtual machine";
    if (const char* failed = makeMemory()) return failed;
    vcpu_.reset(ioctl(vm_.get(), KVM_CREATE_VCPU, 0));
    if (!vcpu_) return "create a virtual processor";
    if (const char* failed = setRegisters()) return failed;
    return execute();
  }

 private:
  const char* makeMemory() {
    void* mapped =
        mmap(nullptr, kGuestBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return "get memory";
    memory_ = static_cast<char*>(mapped);
    kvm_userspace_memory_region region{};
    region.memory_size = kGuestBytes;
    region.userspace_addr = reinterpret_cast<uint64_t>(mapped);
    if (ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0) return "give it memory";
    const std::array<uint64_t, 3> entries = {kPageTablesAt + 0x1003, kPageTablesAt + 0x2003, 0x83};
    for (size_t level = 0; level < entries.size(); ++level) {
      memcpy(memory_ + kPageTablesAt + level * 0x1000, &entries[level], sizeof entries[level]);
    }
    memcpy(memory_ + kCodeAt, kCode, sizeof kCode);
    return nullptr;
  }

  const char* setRegisters() {
    constexpr size_t kEntries = 256;
    alignas(
        kvm_cpuid2) static char storage[sizeof(kvm_cpuid2) + kEntries * sizeof(kvm_cpuid_entry2)];
    auto* cpuid = new (storage) kvm_cpuid2{};
    cpuid->nent = kEntries;
    if (ioctl(kvm_.get(), kGetSupportedCpuid, cpuid) < 0 ||
        ioctl(vcpu_.get(), kSetCpuid, cpuid) < 0) {
      return "set its CPUID";
    }
    kvm_sregs special{};
    if (ioctl(vcpu_.get(), KVM_GET_SREGS, &special) < 0) return "read its registers";
    kvm_segment code{};
    code.limit = 0xffffffff;
    code.selector = 8;
    code.type = 11;
    code.present = code.s = code.l = code.g = 1;
    kvm_segment data = code;
    data.selector = 16;
    data.type = 3;
    data.l = 0;
    data.db = 1;
    special.cs = code;
    special.ds = special.es = special.fs = special.gs = special.ss = data;
    special.cr3 = kPageTablesAt;
    special.cr4 = 0x20;        // PAE
    special.cr0 = 0x80000013;  // PG, ET, MP, PE
    special.efer = 0x500;      // LMA, LME
    if (ioctl(vcpu_.get(), KVM_SET_SREGS, &special) < 0) return "set its registers";
    kvm_regs general{};
    general.rip = kCodeAt;
    general.rsp = kStackAt;
    general.rflags = 2;
    if (ioctl(vcpu_.get(), KVM_SET_REGS, &general) < 0) return "set its registers";
    return nullptr;
  }

  const char* execute() {
    const int size = ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < 0) return "map its state";
    void* mapped = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                        vcpu_.get(), 0);
    if (mapped == MAP_FAILED) return "map its state";
    auto* state = static_cast<kvm_run*>(mapped);
    while (ioctl(vcpu_.get(), KVM_RUN, 0) < 0) {
      if (errno != EINTR && errno != EAGAIN) return "run it";
    }
    switch (state->exit_reason) {
      case KVM_EXIT_IO:
        break;
      case KVM_EXIT_INTERNAL_ERROR:
        return "KVM gave up on an ordinary kernel instruction (KVM_EXIT_INTERNAL_ERROR)";
      case KVM_EXIT_SHUTDOWN:
        return "the processor state was lost (KVM_EXIT_SHUTDOWN)";
      case KVM_EXIT_FAIL_ENTRY:
        return "the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY)";
      default:
        return "an exit that makes no sense there";
    }
    const auto* report = reinterpret_cast<const uint8_t*>(state) + state->io.data_offset;
    const bool done = state->io.port == kReportPort && *report == kReportDone;
    return done ? nullptr : "cmpxchg16b gave a wrong result";
  }

  Fd kvm_, vm_, vcpu_;
  char* memory_ = nullptr;
};

[[noreturn]] void childMain(const char* device, int report) {
  Guest guest(device);
  const char* failed = guest.run();
  if (!failed) failed = "ok";
  [[maybe_unused]] const ssize_t put = ::write(report, failed, strlen(failed));
  _exit(0);
}

}  // namespace

std::string runProbeGuest(const std::string& device) {
  FdPair report = makePipe();
  const pid_t child = fork();
  if (child < 0) throw sysError("start the probe guest");
  if (child == 0) childMain(device.c_str(), report.second.get());
  report.second.reset();
  pollfd waited{report.first.get(), POLLIN, 0};
  int ready;
  do {
    ready = poll(&waited, 1, kProbeTimeoutMilliseconds);
  } while (ready < 0 && errno == EINTR);
  std::string text;
  if (ready == 1) {
    Failure failure;
    const size_t got =
        readSome(report.first.get(), std::as_writable_bytes(std::span(failure.text)));
    text.assign(failure.text, got);
    if (text.empty()) text = "the probe process died";
  } else {
    text = "it did not end in time";
  }
  ::kill(child, SIGKILL);
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return text == "ok" ? "" : text;
}

}  // namespace hull::machine
