#include "vmm/state/saved_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "vmm/config/vm_config.h"
#include "vmm/memory/layout.h"
#include "vmm/state/state_file.h"
#include "vmm/testing/saved_devices.h"

namespace hull::vmm {
namespace {

using testing::DeviceHostSide;
using ::testing::HasSubstr;
using testing::SavedDevices;

VcpuState aVcpu(uint32_t seed) {
  VcpuState vcpu;
  vcpu.tsc_khz = 2'000'000 + seed;
  vcpu.cpuid.resize(3);
  vcpu.cpuid[2].function = seed;
  vcpu.registers.rip = 0x1000 + seed;
  vcpu.system.cr3 = 0x9000;
  vcpu.extended_control.nr_xcrs = 1;
  vcpu.extended.region[1023] = seed;
  vcpu.debug.dr7 = 0x400;
  vcpu.local_apic.regs[1023] = 'x';
  vcpu.msrs = {{0x10, 0, 77}, {0x6e0, 0, seed}};
  vcpu.run_state.mp_state = KVM_MP_STATE_HALTED;
  vcpu.events.nmi.masked = 1;
  return vcpu;
}

SavedMachine aMachine() {
  SavedMachine machine;
  machine.id.fill(std::byte{9});
  machine.memory_bytes = 32 << 20;
  machine.guest_ready = true;
  machine.serial = "abcd";
  machine.vm.chips[2].chip.dummy[511] = 'i';
  machine.vm.clock_ns = 123456789;
  machine.vcpus = {aVcpu(1), aVcpu(2)};
  machine.devices = {{2, "config", "state"}, {19, "", std::string(4096, 's')}};
  return machine;
}

ErrorKind refusal(const std::string& body) {
  try {
    decode(body);
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "was accepted";
  return ErrorKind::kInternal;
}

template <typename Work>
std::string refusalOf(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SavedMachine, DecodesWhatWasEncoded) {
  const SavedMachine machine = aMachine();
  const std::string body = encode(machine);
  const SavedMachine same = decode(body);
  EXPECT_EQ(encode(same), body);
  EXPECT_EQ(same.id, machine.id);
  EXPECT_EQ(same.memory_bytes, machine.memory_bytes);
  EXPECT_TRUE(same.guest_ready);
  EXPECT_EQ(same.serial, "abcd");
  EXPECT_EQ(same.vm.chips[2].chip_id, 2u);
  EXPECT_EQ(same.vm.chips[2].chip.dummy[511], 'i');
  EXPECT_EQ(same.vm.clock_ns, 123456789u);
  ASSERT_EQ(same.vcpus.size(), 2u);
  EXPECT_EQ(same.vcpus[1].tsc_khz, 2'000'002u);
  EXPECT_EQ(same.vcpus[1].cpuid.at(2).function, 2u);
  EXPECT_EQ(same.vcpus[1].registers.rip, 0x1002u);
  EXPECT_EQ(same.vcpus[1].system.cr3, 0x9000u);
  EXPECT_EQ(same.vcpus[1].extended_control.nr_xcrs, 1u);
  EXPECT_EQ(same.vcpus[1].extended.region[1023], 2u);
  EXPECT_EQ(same.vcpus[1].debug.dr7, 0x400u);
  EXPECT_EQ(same.vcpus[1].local_apic.regs[1023], 'x');
  EXPECT_EQ(same.vcpus[1].msrs.at(1).data, 2u);
  EXPECT_EQ(same.vcpus[1].run_state.mp_state, uint32_t{KVM_MP_STATE_HALTED});
  EXPECT_EQ(same.vcpus[1].events.nmi.masked, 1);
  ASSERT_EQ(same.devices.size(), 2u);
  EXPECT_EQ(same.devices[0].config, "config");
  EXPECT_EQ(same.devices[1].state.size(), 4096u);
}

TEST(SavedMachine, EveryTruncationIsRefused) {
  const std::string body = encode(aMachine());
  for (size_t size = 0; size < body.size(); size += size % 7 + 1) {
    EXPECT_EQ(refusal(body.substr(0, size)), ErrorKind::kCorrupt) << size;
  }
  EXPECT_EQ(refusal(body + '\0'), ErrorKind::kCorrupt);
}

TEST(SavedMachine, TooManyOfAnythingIsRefused) {
  SavedMachine machine = aMachine();
  machine.vcpus.resize(kMaxVcpus + 1);
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.devices.resize(layout::kMaxVirtioDevices + 1);
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.devices[0].state.resize(4097);
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.vcpus[0].cpuid.resize(257);
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.vcpus[0].msrs.resize(1025);
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.vcpus[0].extended_control.nr_xcrs = KVM_MAX_XCRS + 1;
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
  machine = aMachine();
  machine.serial = std::string(65, 's');
  EXPECT_EQ(refusal(encode(machine)), ErrorKind::kCorrupt);
}

// A count of four thousand million entries must not make anybody allocate them.
TEST(SavedMachine, CountsBeyondTheFileAreRefused) {
  SavedMachine machine = aMachine();
  machine.devices.clear();
  const std::string body = encode(machine);
  std::string bad = body;
  bad.replace(bad.size() - 4, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(refusal(bad), ErrorKind::kCorrupt);
  machine.vcpus.clear();
  bad = encode(machine);
  bad.replace(bad.size() - 8, 4, "\x40\0\0\0", 4);
  EXPECT_EQ(refusal(bad), ErrorKind::kCorrupt);
}

TEST(SavedMachine, DevicesGoOnInAnotherSet) {
  DeviceHostSide host;
  SavedDevices first(host);
  first.start();
  const auto saved = saveDevices(first.devices, first.transports);
  SavedDevices second(host);
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), first.memory, SaveId{});
  mapMemoryFile(file.get(), second.memory, SaveId{});
  requireSame(second.devices, saved);
  loadDevices(second.transports, saved);
  second.work();
  for (const auto& transport : second.transports) {
    uint32_t status = 0;
    transport->read(0x70, std::as_writable_bytes(std::span(&status, 1)));
    EXPECT_EQ(status, 15u);
  }
}

TEST(SavedMachine, OtherDevicesAreRefused) {
  DeviceHostSide host;
  SavedDevices first(host);
  auto saved = saveDevices(first.devices, first.transports);
  SavedDevices smaller(host, DeviceHostSide::kDiskBytes / 2);
  EXPECT_THAT(refusalOf([&] { requireSame(smaller.devices, saved); }),
              HasSubstr("device 0 (disk) is another"));
  std::swap(saved[2], saved[3]);
  EXPECT_THAT(refusalOf([&] { requireSame(first.devices, saved); }),
              HasSubstr("device 2 (console)"));
  saved.pop_back();
  EXPECT_THAT(refusalOf([&] { requireSame(first.devices, saved); }), HasSubstr("4 devices"));
}

TEST(SavedMachine, DeviceStateThatIsNoneIsRefused) {
  DeviceHostSide host;
  SavedDevices first(host);
  first.start();
  auto saved = saveDevices(first.devices, first.transports);
  saved[4].state += "x";
  SavedDevices second(host);
  EXPECT_THAT(refusalOf([&] { loadDevices(second.transports, saved); }),
              HasSubstr("device 4 (balloon) is wrong"));
}

class Unsavable final : public virtio::Device {
 public:
  virtio::DeviceType type() const noexcept override { return virtio::DeviceType::kFs; }
  uint64_t features() const noexcept override { return 0; }
  std::span<const uint16_t> queueSizes() const noexcept override { return {}; }
  std::span<const std::byte> config() const noexcept override { return {}; }
  void activate(virtio::Activation&&) noexcept override {}
  void notify() noexcept override {}
  void reset() noexcept override {}
  bool canSave() const noexcept override { return false; }
  std::vector<virtio::QueuePosition> queuePositions() const noexcept override { return {}; }
};

TEST(SavedMachine, DeviceThatCannotBeSavedIsNamed) {
  Devices devices;
  devices.push_back(std::make_unique<virtio::RngDevice>());
  requireSavable(devices);
  devices.push_back(std::make_unique<Unsavable>());
  EXPECT_THAT(refusalOf([&] { requireSavable(devices); }), HasSubstr("shared folders"));
}

// The seeds of vmm_saved_state_fuzz (fuzz/corpus/saved_state): a body with its length, and what is
// in memory at SavedDevices::kRings. With HULL_WRITE_SEEDS=FOLDER they are written there.
TEST(SavedMachine, FuzzSeedsAreSavedMachines) {
  const auto seed = [](const SavedMachine& machine, const GuestMemory& memory) {
    ByteWriter out;
    out.string(encode(machine));
    const auto rings =
        memory.iovecOf(SavedDevices::kRings, SavedDevices::kRingsEnd - SavedDevices::kRings);
    out.raw({static_cast<const char*>(rings->iov_base), rings->iov_len});
    return out.take();
  };
  DeviceHostSide host;
  SavedDevices fresh(host);
  SavedDevices running(host);
  running.start();
  SavedMachine machine;
  machine.memory_bytes = running.memory.bytes();
  machine.devices = saveDevices(fresh.devices, fresh.transports);
  const std::string first = seed(machine, fresh.memory);
  machine.devices = saveDevices(running.devices, running.transports);
  const std::string second = seed(machine, running.memory);
  machine.serial = "abcd";
  machine.vcpus.push_back(aVcpu(3));
  const std::string third = seed(machine, running.memory);
  for (const std::string& each : {first, second, third}) {
    ByteReader in(each);
    EXPECT_EQ(decode(in.view(each.size())).devices.size(), fresh.devices.size());
  }
  if (const char* folder = getenv("HULL_WRITE_SEEDS")) {
    writeFileAtomic(std::string(folder) + "/fresh", first);
    writeFileAtomic(std::string(folder) + "/running", second);
    writeFileAtomic(std::string(folder) + "/vcpu", third);
  }
}

}  // namespace
}  // namespace hull::vmm
