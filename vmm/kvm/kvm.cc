#include "vmm/kvm/kvm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"
#include "vmm/kvm/lists.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

constexpr size_t kMaxCpuidEntries = 256;
constexpr size_t kMaxMsrIndices = 1024;

// Memory types (Intel SDM vol. 3A §12.11): part of the state, but in no kernel's list.
constexpr uint32_t kMtrrDefault = 0x2ff;
constexpr uint32_t kMtrrVariable = 0x200;  // and the 15 behind it
constexpr uint32_t kMtrrVariableCount = 16;
constexpr std::array<uint32_t, 11> kMtrrFixed{0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                              0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

Error openError() {
  if (errno == ENOENT) {
    return Error(ErrorKind::kNotSupported,
                 "open /dev/kvm: not there (load kvm_intel or kvm_amd, or switch virtualization on "
                 "in the firmware)");
  }
  if (errno == EACCES || errno == EPERM) {
    return Error(ErrorKind::kForbidden,
                 "open /dev/kvm: not allowed (join the group that owns it, usually kvm)");
  }
  return sysError("open /dev/kvm");
}

}  // namespace

int kvmIoctl(int fd, unsigned long request, unsigned long argument, const char* operation) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  if (result < 0) throw sysError(std::string("kvm: ") + operation);
  return result;
}

int kvmIoctl(int fd, unsigned long request, const void* argument, const char* operation) {
  return kvmIoctl(fd, request, reinterpret_cast<unsigned long>(argument), operation);
}

Kvm::Kvm() : fd_(open("/dev/kvm", O_RDWR | O_CLOEXEC)) {
  if (!fd_) throw openError();
  const int version = kvmIoctl(fd_.get(), KVM_GET_API_VERSION, 0ul, "ask for the version");
  if (version != KVM_API_VERSION) {
    throw Error(ErrorKind::kNotSupported, fmt::format("kvm: version {} is unknown", version));
  }
  for (const int needed : {KVM_CAP_IRQFD, KVM_CAP_IOEVENTFD, KVM_CAP_IMMEDIATE_EXIT,
                           KVM_CAP_USER_MEMORY, KVM_CAP_TSC_DEADLINE_TIMER}) {
    if (!has(needed)) {
      throw Error(
          ErrorKind::kNotSupported,
          fmt::format("kvm: capability {} is missing (Linux 4.11 or later is needed)", needed));
    }
  }
  run_mapping_bytes_ = static_cast<size_t>(
      kvmIoctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0ul, "ask for the size of the run area"));
}

bool Kvm::has(int capability) const {
  return ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability) > 0;
}

std::vector<kvm_cpuid_entry2> Kvm::supportedCpuid() const {
  KvmList<kvm_cpuid_entry2> list(kMaxCpuidEntries);
  kvmIoctl(fd_.get(), kKvmGetSupportedCpuid, list.data(), "ask for the supported CPU features");
  return list.entries();
}

std::vector<uint32_t> Kvm::stateMsrs() const {
  std::vector<uint32_t> list(1 + kMaxMsrIndices);  // the count, and the indices behind
  list[0] = kMaxMsrIndices;
  kvmIoctl(fd_.get(), kKvmGetMsrIndexList, list.data(), "ask for the registers of a vCPU");
  std::set<uint32_t> all(list.begin() + 1, list.begin() + 1 + list[0]);
  for (uint32_t i = 0; i < kMtrrVariableCount; ++i) all.insert(kMtrrVariable + i);
  all.insert(kMtrrFixed.begin(), kMtrrFixed.end());
  all.insert(kMtrrDefault);
  return {all.begin(), all.end()};
}

Fd Kvm::createVm() const {
  return Fd(kvmIoctl(fd_.get(), KVM_CREATE_VM, 0ul, "create a VM"));
}

KvmVm::KvmVm(const Kvm& kvm, GuestMemory& memory)
    : fd_(kvm.createVm()), any_length_notify_(kvm.has(KVM_CAP_IOEVENTFD_ANY_LENGTH)) {
  const uint64_t identity_map = layout::kIdentityMap;
  kvmIoctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "place the identity map");
  kvmIoctl(fd_.get(), KVM_SET_TSS_ADDR, layout::kTss, "place the TSS");
  kvmIoctl(fd_.get(), KVM_CREATE_IRQCHIP, 0ul, "create the interrupt controllers");
  addMemory(memory);
}

void KvmVm::addMemory(GuestMemory& memory) {
  uint32_t slot = 0;
  for (const auto& range : memory.ranges()) {
    kvm_userspace_memory_region region{};
    region.slot = slot++;
    region.guest_phys_addr = range.start;
    region.memory_size = range.bytes;
    region.userspace_addr = reinterpret_cast<uint64_t>(range.host);
    kvmIoctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region, "give the VM its memory");
  }
}

// Length 0 spares KVM decoding the instruction where the CPU reports the address (fast MMIO).
void KvmVm::addNotify(uint64_t address, int event) {
  kvm_ioeventfd notify{};
  notify.addr = address;
  notify.len = any_length_notify_ ? 0 : sizeof(uint32_t);
  notify.fd = event;
  kvmIoctl(fd_.get(), KVM_IOEVENTFD, &notify, "add a notification");
}

void KvmVm::addNotify(uint64_t address, int event, uint32_t value) {
  kvm_ioeventfd notify{};
  notify.addr = address;
  notify.len = sizeof value;
  notify.datamatch = value;
  notify.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  notify.fd = event;
  kvmIoctl(fd_.get(), KVM_IOEVENTFD, &notify, "add a notification");
}

void KvmVm::addInterrupt(uint32_t gsi, int event) {
  kvm_irqfd interrupt{};
  interrupt.fd = static_cast<uint32_t>(event);
  interrupt.gsi = gsi;
  kvmIoctl(fd_.get(), KVM_IRQFD, &interrupt, "add an interrupt");
}

}  // namespace hull::vmm
