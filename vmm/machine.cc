#include "vmm/machine.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "vmm/boot/device_tree.h"
#include "vmm/boot/linux_boot.h"
#include "vmm/kvm/cpu_model.h"
#include "vmm/memory/layout.h"
#include "vmm/virtio/balloon/balloon.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/console/console.h"
#include "vmm/virtio/fs/fs.h"
#include "vmm/virtio/net/net.h"
#include "vmm/virtio/rng/rng.h"
#include "vmm/virtio/vsock/vsock.h"

namespace hull::vmm {

namespace {

constexpr uint64_t kQueueNotifyRegister = 0x50;  // virtio 1.2 §4.2.2

}  // namespace

// The recipe: hypervisor, memory, devices, buses, guest, CPUs. Kernel and initrd go in last but
// one, so that what is wrong with the configuration shows before megabytes are read.
Machine::Machine(VmConfig config, Clock::time_point started)
    : config_(std::move(config)),
      started_(started),
      loop_thread_(loop_),
      memory_(config_.memory_mib * layout::kMiB,
              config_.fs ? GuestMemory::Sharing::kShared : GuestMemory::Sharing::kPrivate),
      vm_(kvm_, memory_),
      group_(config_.vcpus, [this] { loop_.post([this] { onAllParked(); }); }),
      exit_port_(*this),
      keyboard_(*this),
      power_(*this),
      pvpanic_(*this) {
  addDevices();
  addPlatform();
  if (config_.large_pages) {
    for (const auto& range : memory_.ranges()) memory_.preferLargePages(range.start, range.bytes);
  }
  auto cpuid = kvm_.supportedCpuid();
  if (config_.stable_cpu) cpuid = stableCpuModel(std::move(cpuid));
  for (uint32_t i = 0; i < config_.vcpus; ++i) {
    vcpus_.push_back(std::make_unique<Vcpu>(kvm_, vm_, i, config_.vcpus, cpuid));
  }
  state_msrs_ = kvm_.stateMsrs();
  if (!config_.restore) loadGuest();
  watchSignals();
  if (config_.control_fd >= 0) {
    control_ = std::make_unique<ControlServer>(
        config_.control_fd, loop_,
        [this](auto client, const auto& command, auto line) { onCommand(client, command, line); });
  }
}

Machine::~Machine() = default;

// Disks first: /dev/vda, vdb, … in the order of the configuration.
void Machine::addDevices() {
  if (!config_.disks.empty()) io_engine_ = virtio::makeIoEngine(loop_);
  for (const auto& disk : config_.disks) {
    disks_.push_back(
        addDevice(std::make_unique<virtio::BlockDevice>(disk, config_.vcpus, *io_engine_, loop_)));
  }
  for (const auto& net : config_.nets) {
    nets_.push_back(addDevice(std::make_unique<virtio::NetDevice>(net, loop_)));
  }
  if (config_.vsock) addDevice(std::make_unique<virtio::VsockDevice>(*config_.vsock, loop_));
  addDevice(
      std::make_unique<virtio::ConsoleDevice>(config_.early_serial ? -1 : config_.console_fd));
  addDevice(std::make_unique<virtio::RngDevice>());
  if (config_.balloon) balloon_ = addDevice(std::make_unique<virtio::BalloonDevice>());
  // Last: its back end starts meanwhile.
  if (config_.fs) {
    addDevice(std::make_unique<virtio::FsDevice>(
        *config_.fs, loop_, virtio::VhostUserClient::kReplyTime, [this](std::string_view why) {
          guestEnds(ExitReason::kError, fmt::format("shared folders are gone: virtiofsd: {}", why));
        }));
  }
}

template <typename Device>
Device* Machine::addDevice(std::unique_ptr<Device> device) {
  Device* raw = device.get();
  attach(std::move(device));
  return raw;
}

void Machine::attach(std::unique_ptr<virtio::Device> device) {
  const auto slot = static_cast<uint32_t>(transports_.size());
  if (slot >= layout::kMaxVirtioDevices) {  // each has an interrupt pin of its own
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("build the VM: more than {} devices; give it fewer disks or networks",
                            layout::kMaxVirtioDevices));
  }
  const uint64_t base = layout::kVirtioBase + slot * layout::kVirtioStride;
  auto transport = std::make_unique<virtio::MmioTransport>(memory_, *device, loop_thread_);
  mmio_.attach(base, layout::kVirtioBytes, *transport);
  const auto own_notify_fds = device->queueNotifyFds();
  for (uint32_t queue = 0; queue < own_notify_fds.size(); ++queue) {
    vm_.addNotify(base + kQueueNotifyRegister, own_notify_fds[queue].get(), queue);
  }
  if (own_notify_fds.empty()) vm_.addNotify(base + kQueueNotifyRegister, transport->notifyFd());
  vm_.addInterrupt(layout::gsiOfSlot(slot), transport->interruptFd());
  loop_.add(transport->notifyFd(), EPOLLIN, [raw = transport.get()](uint32_t) { raw->onNotify(); });
  devices_.push_back(std::move(device));
  transports_.push_back(std::move(transport));
}

void Machine::addPlatform() {
  ports_.attach(kExitPort, 1, exit_port_);
  ports_.attach(kKeyboardPort, 1, keyboard_);
  mmio_.attach(layout::kPowerBase, layout::kPowerBytes, power_);
  mmio_.attach(layout::kPvpanicBase, layout::kPvpanicBytes, pvpanic_);
  if (!config_.early_serial) return;
  serial_ = std::make_unique<SerialOutput>(config_.console_fd);
  ports_.attach(kSerialPort, kSerialPorts, *serial_);
}

std::string Machine::commandLine() const {
  std::string line = "reboot=k panic=-1 iommu=off dummy.numdummies=0";
  line += config_.early_serial ? " console=ttyS0 earlycon=uart8250,io,0x3f8 8250.nr_uarts=1"
                               : " quiet console=hvc0 8250.nr_uarts=0";
  if (!config_.command_line.empty()) line += " " + config_.command_line;
  return line;
}

void Machine::loadGuest() {
  const auto kernel = loadKernel(config_.kernel_fd, memory_);
  LoadedInitrd initrd;
  if (config_.initrd_fd >= 0) initrd = loadInitrd(config_.initrd_fd, memory_, kernel.end);
  std::vector<DeviceTreeDevice> virtio;
  for (uint32_t slot = 0; slot < transports_.size(); ++slot) {
    virtio.push_back({layout::kVirtioBase + slot * layout::kVirtioStride, layout::gsiOfSlot(slot)});
  }
  const auto device_tree = buildDeviceTree(config_.vcpus, virtio);
  writeBootData(memory_, {kernel, initrd, commandLine(), device_tree});
  setBootRegisters(vcpus_[0]->fd(), kernel.entry);
}

namespace {

sigset_t stopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void Machine::holdSignals() {
  const sigset_t set = stopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// SIGTERM arrives as an event of the loop; held before any thread inherits the mask.
void Machine::watchSignals() {
  holdSignals();
  const sigset_t set = stopSignals();
  signals_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) throw sysError("watch signals");
  loop_.add(signals_.get(), EPOLLIN,
            [this](uint32_t) { guestEnds(ExitReason::kTerminated, "signal"); });
  VcpuGroup::installSignalHandler();
}

void Machine::startVcpus(const ThreadFilters& filters) {
  const Vcpu::World world{ports_, mmio_, group_, *this};
  for (const auto& vcpu : vcpus_) {
    threads_.emplace_back([world, &vcpu = *vcpu, &filters] {
      pthread_setname_np(pthread_self(), fmt::format("vcpu{}", vcpu.index()).c_str());
      if (filters.vcpu) filters.vcpu->applyToThisThread();
      vcpu.run(world);
    });
  }
}

MachineEnd Machine::run(const ThreadFilters& filters) {
  log::debug(fmt::format(
      "starting the vCPUs {} us after the process",
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started_).count()));
  if (io_engine_) io_engine_->start(filters.disk_io);
  if (config_.restore) restore();
  startVcpus(filters);
  if (filters.devices) filters.devices->applyToThisThread();
  try {
    loop_.run();
  } catch (const std::exception& error) {
    guestEnds(ExitReason::kError, fmt::format("device thread: {}", error.what()));
  }
  group_.stop();
  loop_thread_.close();
  for (auto& thread : threads_) thread.join();
  const std::lock_guard lock(end_mutex_);
  return *end_;
}

void Machine::guestReady() noexcept {
  const auto now = Clock::now() - started_;
  const std::lock_guard lock(end_mutex_);
  if (ready_us_) return;
  ready_us_ = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  log::debug(fmt::format("guest ready after {} us", *ready_us_));
}

void Machine::guestEnds(ExitReason reason, std::string_view detail) noexcept {
  {
    const std::lock_guard lock(end_mutex_);
    if (!end_) end_ = MachineEnd{reason, std::string(detail)};
  }
  group_.stop();
  loop_.stop();
}

}  // namespace hull::vmm
