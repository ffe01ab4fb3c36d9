// One virtual machine: builds it from a VmConfig, runs it, and says how it ended. The thread that
// calls run() becomes the device thread; each vCPU gets a thread of its own.
//
// Owner: main. The constructor does everything that needs privileges (opening /dev/kvm); run() does
// nothing that does, so the process jails itself in between.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/event_loop.h"
#include "vmm/bus/bus.h"
#include "vmm/bus/platform.h"
#include "vmm/config/vm_config.h"
#include "vmm/control.h"
#include "vmm/jail/seccomp.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vcpu_group.h"
#include "vmm/loop_thread.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/virtio/block/io_engine.h"
#include "vmm/virtio/mmio/transport.h"

namespace hull::vmm {

namespace virtio {
class BalloonDevice;
class BlockDevice;
class NetDevice;
}  // namespace virtio

struct MachineEnd {
  ExitReason reason = ExitReason::kError;
  std::string detail;
};

// The system call filters of the kinds of threads; none: unfiltered (tests).
struct ThreadFilters {
  std::optional<SeccompFilter> devices;
  std::optional<SeccompFilter> vcpu;
  std::optional<SeccompFilter> disk_io;
};

class Machine final : private PlatformEvents {
 public:
  using Clock = std::chrono::steady_clock;

  // `started`: when the process began, for "ready_us". Throws hull::Error.
  Machine(VmConfig config, Clock::time_point started);
  ~Machine() override;

  // Keeps SIGTERM and SIGINT waiting for run(). First thing in a process: as PID 1 of a namespace
  // it would otherwise lose what comes too early.
  static void holdSignals();

  // Starts the vCPUs and serves devices until the VM ends. Once.
  MachineEnd run(const ThreadFilters& filters);

 private:
  void addDevices();
  template <typename Device>
  Device* addDevice(std::unique_ptr<Device> device);
  void attach(std::unique_ptr<virtio::Device> device);
  void addPlatform();
  void loadGuest();
  std::string commandLine() const;

  void startVcpus(const ThreadFilters& filters);
  void watchSignals();
  // Control commands (machine_control.cc).
  void onCommand(ControlServer::ClientId client, const std::string& command, std::string_view line);
  void changeLimits(std::string_view line);
  virtio::BlockDevice& disk(const std::string& id);
  void growDisk(ControlServer::ClientId client, std::string_view line);
  void cutDisk(std::string_view line);
  void inflateBalloon(std::string_view line);
  std::string status();
  void refuse(ControlServer::ClientId client, const Error& error);
  void resume();
  void onAllParked();

  // Save and restore (machine_save.cc).
  struct SavedBytes {
    uint64_t state = 0;
    uint64_t memory = 0;
  };
  struct PendingSave {
    ControlServer::ClientId client;
    Fd state;
    Fd memory;
    bool was_running;
  };
  static constexpr size_t kSaveFiles = 2;
  void beginSave(ControlServer::ClientId client);
  void finishSave();
  SavedBytes saveTo(int state_fd, int memory_fd);
  void restore();

  void guestReady() noexcept override;
  void guestEnds(ExitReason reason, std::string_view detail) noexcept override;

  VmConfig config_;
  Clock::time_point started_;
  EventLoop loop_;
  LoopThread loop_thread_;
  Kvm kvm_;
  GuestMemory memory_;
  KvmVm vm_;
  VcpuGroup group_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<uint32_t> state_msrs_;  // sorted

  Bus ports_{"port"};
  Bus mmio_{"mmio"};
  ExitPort exit_port_;
  KeyboardReset keyboard_;
  PowerRegister power_;
  Pvpanic pvpanic_;
  std::unique_ptr<SerialOutput> serial_;
  std::unique_ptr<virtio::IoEngine> io_engine_;  // outlives the disks
  std::vector<std::unique_ptr<virtio::Device>> devices_;
  std::vector<std::unique_ptr<virtio::MmioTransport>> transports_;
  // Some of devices_, to talk to.
  std::vector<virtio::BlockDevice*> disks_;
  std::vector<virtio::NetDevice*> nets_;
  virtio::BalloonDevice* balloon_ = nullptr;

  Fd signals_;
  std::unique_ptr<ControlServer> control_;
  std::vector<ControlServer::ClientId> awaiting_pause_;
  std::optional<PendingSave> save_;
  enum class State { kRunning, kPausing, kPaused } state_ = State::kRunning;
  std::vector<std::thread> threads_;

  std::mutex end_mutex_;  // guards the rest
  std::optional<MachineEnd> end_;
  std::optional<int64_t> ready_us_;
};

}  // namespace hull::vmm
