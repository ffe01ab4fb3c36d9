#include "vmm/kvm/vcpu.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/vcpu_state.h"

namespace hull::vmm {

namespace {

uint32_t tscKhzOf(int vcpu) {
  const int khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
  return khz > 0 ? static_cast<uint32_t>(khz) : 0;
}

}  // namespace

Vcpu::Vcpu(const Kvm& kvm, const KvmVm& vm, uint32_t index, uint32_t vcpus,
           std::span<const kvm_cpuid_entry2> supported)
    : index_(index),
      fd_(kvmIoctl(vm.fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index), "create a vCPU")),
      tsc_khz_(tscKhzOf(fd_.get())),
      cpuid_(cpuidFor(supported, index, vcpus, tsc_khz_)),
      mapping_bytes_(kvm.runMappingBytes()) {
  setCpuid(fd_.get(), cpuid_);
  void* mapping = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (mapping == MAP_FAILED) throw sysError("map a vCPU's run area");
  run_ = static_cast<kvm_run*>(mapping);
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) munmap(run_, mapping_bytes_);
}

void Vcpu::run(const World& world) noexcept {
  world.group.join(index_, pthread_self(), &run_->immediate_exit);
  for (;;) {
    if (ioctl(fd_.get(), KVM_RUN, 0) == 0) {
      if (!handleExit(world)) break;
      continue;
    }
    // Only here: after an exit for I/O, KVM finishes the instruction when it is entered again, and
    // a vCPU must not be parked in the middle of one.
    if (errno == EINTR) {
      if (!world.group.park(index_)) return;
    } else if (errno != EAGAIN) {  // EAGAIN: a waiting vCPU got its start-up interrupt
      fail(world, "KVM_RUN", static_cast<uint64_t>(errno));
      break;
    }
  }
  world.group.park(index_);  // guestEnds() has stopped the group
}

// False: this vCPU must not be entered again.
bool Vcpu::handleExit(const World& world) noexcept {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      handlePortAccess(world.ports);
      return true;
    case KVM_EXIT_MMIO: {
      auto& mmio = run_->mmio;
      const std::span<uint8_t> data(mmio.data, std::min<size_t>(mmio.len, sizeof mmio.data));
      if (mmio.is_write != 0) {
        world.mmio.write(mmio.phys_addr, std::as_bytes(data));
      } else {
        world.mmio.read(mmio.phys_addr, std::as_writable_bytes(data));
      }
      return true;
    }
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return true;
    case KVM_EXIT_SHUTDOWN:
      world.events.guestEnds(ExitReason::kTripleFault, fmt::format("on vCPU {}", index_));
      return false;
    case KVM_EXIT_SYSTEM_EVENT:
      world.events.guestEnds(run_->system_event.type == KVM_SYSTEM_EVENT_RESET ? ExitReason::kReset
                             : run_->system_event.type == KVM_SYSTEM_EVENT_CRASH
                                 ? ExitReason::kPanic
                                 : ExitReason::kPowerOff,
                             "reported by KVM");
      return false;
    case KVM_EXIT_FAIL_ENTRY:
      return fail(world, "the CPU refused to enter the guest, hardware reason",
                  run_->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR:
      return fail(world, "KVM internal error", run_->internal.suberror);
    default:
      return fail(world, "unexpected exit", run_->exit_reason);
  }
}

// A string instruction brings up to `count` elements at once.
void Vcpu::handlePortAccess(Bus& ports) noexcept {
  const auto& io = run_->io;
  if (io.data_offset > mapping_bytes_) return;
  auto* data = reinterpret_cast<std::byte*>(run_) + io.data_offset;
  const size_t room = mapping_bytes_ - io.data_offset;
  for (uint64_t i = 0; i < io.count && (i + 1) * io.size <= room; ++i) {
    const std::span<std::byte> element(data + i * io.size, io.size);
    if (io.direction == KVM_EXIT_IO_OUT) {
      ports.write(io.port, element);
    } else {
      ports.read(io.port, element);
    }
  }
}

bool Vcpu::fail(const World& world, const char* what, uint64_t code) noexcept {
  world.events.guestEnds(ExitReason::kError, fmt::format("vCPU {}: {} {:#x}", index_, what, code));
  return false;
}

}  // namespace hull::vmm
