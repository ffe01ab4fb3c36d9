#include "vmm/kvm/vcpu_state.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "base/error.h"
#include "vmm/kvm/kvm.h"

namespace hull::vmm {

namespace {

constexpr uint32_t kMsrTsc = 0x10;
constexpr uint32_t kMsrTscDeadline = 0x6e0;
constexpr size_t kMsrsAtOnce = 128;  // KVM takes up to 256
constexpr size_t kMaxCpuidEntries = 256;
constexpr size_t kMaxMsrs = 1024;

template <typename T>
void putRaw(ByteWriter& out, const T& value) {
  out.raw({reinterpret_cast<const char*>(&value), sizeof value});
}
template <typename T>
void takeRaw(ByteReader& in, T& value) {
  const std::string_view bytes = in.raw(sizeof value);
  if (in.ok()) std::memcpy(&value, bytes.data(), sizeof value);
}
template <typename T>
void putList(ByteWriter& out, const std::vector<T>& list) {
  out.u32(static_cast<uint32_t>(list.size()));
  for (const T& each : list) putRaw(out, each);
}
template <typename T>
void takeList(ByteReader& in, size_t limit, std::vector<T>& list) {
  const uint32_t count = in.u32();
  if (count > limit || count > in.remaining() / sizeof(T)) return in.fail();
  list.resize(count);
  for (T& each : list) takeRaw(in, each);
}

// Registers that are in the list but cannot be read on this host are left out.
std::vector<kvm_msr_entry> readMsrs(int vcpu, std::span<const uint32_t> indices) {
  std::vector<kvm_msr_entry> all;
  while (!indices.empty()) {
    const auto part = indices.first(std::min(indices.size(), kMsrsAtOnce));
    std::vector<kvm_msr_entry> asked;
    for (const uint32_t index : part) asked.push_back({index, 0, 0});
    KvmList<kvm_msr_entry> list{std::span<const kvm_msr_entry>(asked)};
    const int got = kvmIoctl(vcpu, kKvmGetMsrs, list.data(), "read a vCPU's registers");
    const auto entries = list.entries();
    all.insert(all.end(), entries.begin(), entries.begin() + got);
    const bool stopped = static_cast<size_t>(got) < part.size();
    indices = indices.subspan(static_cast<size_t>(got) + (stopped ? 1 : 0));
  }
  return all;
}

// The deadline goes last, behind the clock it is measured by. One that is not armed may have just
// fired, its interrupt under way: it fires once more, at once, for which guests are prepared.
void settleDeadline(std::vector<kvm_msr_entry>& msrs) {
  const auto find = [&](uint32_t index) {
    return std::find_if(msrs.begin(), msrs.end(),
                        [&](const kvm_msr_entry& msr) { return msr.index == index; });
  };
  const auto clock = find(kMsrTsc);
  const auto deadline = find(kMsrTscDeadline);
  if (clock == msrs.end() || deadline == msrs.end()) return;
  if (deadline->data == 0) deadline->data = clock->data;
  std::rotate(deadline, deadline + 1, msrs.end());
}

bool holds(int vcpu, const kvm_msr_entry& wanted) {
  const auto now = readMsrs(vcpu, std::span(&wanted.index, 1));
  return now.size() == 1 && now[0].data == wanted.data;
}

void writeMsrs(int vcpu, std::span<const kvm_msr_entry> msrs) {
  while (!msrs.empty()) {
    const auto part = msrs.first(std::min(msrs.size(), kMsrsAtOnce));
    KvmList<kvm_msr_entry> list(part);
    const auto done =
        static_cast<size_t>(kvmIoctl(vcpu, kKvmSetMsrs, list.data(), "write a vCPU's registers"));
    if (done == part.size()) {
      msrs = msrs.subspan(done);
      continue;
    }
    // Some can be read, but not written: all is well when they hold the value anyway.
    if (!holds(vcpu, part[done])) {
      throw Error(ErrorKind::kNotSupported,
                  fmt::format("kvm: register {:#x} cannot be {:#x} on this host", part[done].index,
                              part[done].data));
    }
    msrs = msrs.subspan(done + 1);
  }
}

void setTscKhz(int vcpu, uint32_t wanted, uint32_t own) {
  if (wanted == 0 || wanted == own) return;
  kvmIoctl(vcpu, KVM_SET_TSC_KHZ, static_cast<unsigned long>(wanted),
           "give the vCPU the clock rate it was saved with (this host cannot scale it)");
}

}  // namespace

void put(ByteWriter& out, const VcpuState& state) {
  out.u32(state.tsc_khz);
  putList(out, state.cpuid);
  putRaw(out, state.registers);
  putRaw(out, state.system);
  putRaw(out, state.extended_control);
  putRaw(out, state.extended);
  putRaw(out, state.debug);
  putRaw(out, state.local_apic);
  putList(out, state.msrs);
  putRaw(out, state.run_state);
  putRaw(out, state.events);
}

VcpuState takeVcpuState(ByteReader& in) {
  VcpuState state;
  state.tsc_khz = in.u32();
  takeList(in, kMaxCpuidEntries, state.cpuid);
  takeRaw(in, state.registers);
  takeRaw(in, state.system);
  takeRaw(in, state.extended_control);
  takeRaw(in, state.extended);
  takeRaw(in, state.debug);
  takeRaw(in, state.local_apic);
  takeList(in, kMaxMsrs, state.msrs);
  takeRaw(in, state.run_state);
  takeRaw(in, state.events);
  if (state.extended_control.nr_xcrs > KVM_MAX_XCRS) in.fail();
  return state;
}

void setCpuid(int vcpu, const std::vector<kvm_cpuid_entry2>& entries) {
  KvmList<kvm_cpuid_entry2> list(entries);
  kvmIoctl(vcpu, kKvmSetCpuid2, list.data(), "set the CPU's features");
}

// The run state first: asking for it makes KVM settle start-up interrupts that are still pending.
VcpuState readVcpuState(int vcpu, std::span<const uint32_t> msrs) {
  VcpuState state;
  kvmIoctl(vcpu, KVM_GET_MP_STATE, &state.run_state, "read a vCPU's run state");
  kvmIoctl(vcpu, KVM_GET_REGS, &state.registers, "read a vCPU's registers");
  kvmIoctl(vcpu, KVM_GET_SREGS, &state.system, "read a vCPU's system registers");
  kvmIoctl(vcpu, kKvmGetXsave, &state.extended, "read a vCPU's extended registers");
  kvmIoctl(vcpu, KVM_GET_XCRS, &state.extended_control, "read a vCPU's extended control");
  kvmIoctl(vcpu, KVM_GET_DEBUGREGS, &state.debug, "read a vCPU's debug registers");
  kvmIoctl(vcpu, KVM_GET_LAPIC, &state.local_apic, "read a vCPU's interrupt controller");
  state.msrs = readMsrs(vcpu, msrs);
  settleDeadline(state.msrs);
  kvmIoctl(vcpu, KVM_GET_VCPU_EVENTS, &state.events, "read a vCPU's events");
  return state;
}

// The order matters: features decide which registers there are; the system registers say how the
// interrupt controller is reached; its timer mode says whether a deadline means anything; and
// setting general registers forgets pending exceptions.
void writeVcpuState(int vcpu, const VcpuState& state, uint32_t tsc_khz) {
  setTscKhz(vcpu, state.tsc_khz, tsc_khz);
  setCpuid(vcpu, state.cpuid);
  kvmIoctl(vcpu, KVM_SET_SREGS, &state.system, "write a vCPU's system registers");
  kvmIoctl(vcpu, KVM_SET_XCRS, &state.extended_control, "write a vCPU's extended control");
  kvmIoctl(vcpu, kKvmSetXsave, &state.extended, "write a vCPU's extended registers");
  kvmIoctl(vcpu, KVM_SET_REGS, &state.registers, "write a vCPU's registers");
  kvmIoctl(vcpu, KVM_SET_DEBUGREGS, &state.debug, "write a vCPU's debug registers");
  kvmIoctl(vcpu, KVM_SET_LAPIC, &state.local_apic, "write a vCPU's interrupt controller");
  writeMsrs(vcpu, state.msrs);
  kvmIoctl(vcpu, KVM_SET_MP_STATE, &state.run_state, "write a vCPU's run state");
  kvmIoctl(vcpu, KVM_SET_VCPU_EVENTS, &state.events, "write a vCPU's events");
}

void tellPaused(int vcpu) noexcept {
  ioctl(vcpu, KVM_KVMCLOCK_CTRL, 0);  // fails where the guest does not use that clock
}

}  // namespace hull::vmm
