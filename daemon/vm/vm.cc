#include "daemon/vm/vm.h"

#include <signal.h>

#include <atomic>
#include <mutex>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/vm/disk_growth.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/vm_core.h"
#include "daemon/vm/vm_launch.h"
#include "daemon/vm/vmm_control.h"

namespace hull::engine {

namespace {

using std::chrono::milliseconds;

constexpr size_t kMaxSizeFileBytes = 64;
constexpr milliseconds kStreamTimeout = std::chrono::seconds(60);  // to open one
constexpr milliseconds kAdoptTimeout = std::chrono::seconds(60);
constexpr milliseconds kTerminateGrace = std::chrono::seconds(2);  // between SIGTERM and SIGKILL

class MachineVm final : public Vm {
 public:
  MachineVm(std::shared_ptr<VmCore> core, bool paused) : core_(std::move(core)), paused_(paused) {
    core_->run();
  }
  ~MachineVm() override { core_->close(false); }

  void onProcessExit(EventFunction function) override {
    core_->setEventFunction(std::move(function));
  }
  void onExit(ExitFunction function) override { core_->setExitFunction(std::move(function)); }

  guest::Message request(const std::string& container, guest::Message message,
                         milliseconds timeout) override {
    return core_->request(container, std::move(message), timeout);
  }

  Fd openStream(const std::string& container, const guest::OpenStream& stream) override;
  void setDiskLimits(const DiskLimits& limits) override;
  void listen(const std::string& container, EventFunction exited, ExitFunction ended) override {
    core_->listen(container, std::move(exited), std::move(ended));
  }
  void stopListening(const std::string& container) override { core_->stopListening(container); }
  AddedDisks addDisks(const std::vector<AddedDisk>& disks) override;
  void removeDisks(uint64_t offset, uint64_t length) override {
    cutVmmDisk(controlSocket(), {kWritableDiskId, offset, length});
  }
  void pause() override {
    commandVmm(controlSocket(), "pause");
    paused_ = true;
  }
  void resume() override {
    commandVmm(controlSocket(), "resume");
    paused_ = false;
  }
  VmExit stop(milliseconds grace) override;
  bool running() const override { return !core_->ended(); }
  pid_t vmmPid() const override { return core_->process().pid(); }
  void abandon() override { core_->close(true); }

 private:
  std::string controlSocket() const { return core_->directory() + "/" + kControlSocket; }
  void askForPowerOff(milliseconds grace);

  const std::shared_ptr<VmCore> core_;
  std::atomic<bool> paused_;
  std::mutex growing_;  // of two additions each finds its own place
};

Fd MachineVm::openStream(const std::string& container, const guest::OpenStream& stream) {
  return inContext("open a stream to the guest", [&] {
    const Deadline deadline = deadlineIn(kStreamTimeout);
    const int pidfd = core_->process().pidfd();
    Fd socket =
        connectGuest(core_->directory() + "/" + kVsockSocket, guest::kStreamPort, deadline, pidfd);
    sendAll(socket.get(), guest::encode({1, container, stream}), deadline, pidfd);
    const guest::Frame reply = receiveFrame(socket.get(), deadline, pidfd);
    if (const auto* failure = std::get_if<guest::Failure>(&reply.message)) throwFailure(*failure);
    if (!std::holds_alternative<guest::Ok>(reply.message)) {
      throw Error(ErrorKind::kCorrupt, "the guest answered with the wrong kind of message");
    }
    return socket;
  });
}

void MachineVm::setDiskLimits(const DiskLimits& limits) {
  for (const char* disk : {kRootDiskId, kWritableDiskId}) {
    changeVmmLimits(controlSocket(), {disk, limits.read, limits.write});
  }
}

// The addresses of what was there before are never used again.
Vm::AddedDisks MachineVm::addDisks(const std::vector<AddedDisk>& disks) {
  const std::lock_guard lock(growing_);
  AddedDisks added = placesOf(disks, vmmDiskBytes(controlSocket(), kWritableDiskId));
  try {
    for (size_t n = 0; n < disks.size(); ++n) {
      for (const Growth& growth : growthsOf(disks[n], added.parts[n].offset, added)) {
        growVmmDisk(controlSocket(), growth.change, numbersOf(growth.files));
      }
    }
  } catch (...) {
    try {
      removeDisks(added.offset, added.length);
    } catch (const Error& error) {
      log::debug(std::string("take back what a disk grew by: ") + error.what());
    }
    throw;
  }
  return added;
}

void MachineVm::askForPowerOff(milliseconds grace) {
  try {
    if (paused_) resume();
    core_->request("", guest::PowerOff{}, grace);
  } catch (const Error& error) {
    // Gone already, or it will not: what follows settles it.
    log::debug(std::string("power off: ") + error.what());
  }
}

VmExit MachineVm::stop(milliseconds grace) {
  const Deadline deadline = deadlineIn(grace);
  if (!core_->ended() && grace > milliseconds::zero()) askForPowerOff(grace);
  if (auto exit = core_->waitExit(deadline)) return *exit;
  core_->process().kill(SIGTERM);
  if (auto exit = core_->waitExit(deadlineIn(kTerminateGrace))) return *exit;
  core_->process().kill(SIGKILL);
  if (auto exit = core_->waitExit(deadlineIn(std::chrono::minutes(1)))) return *exit;
  throw Error(ErrorKind::kTimeout, "stop virtual machine: process " + std::to_string(vmmPid()) +
                                       " does not end, even killed");
}

// The engine was killed between starting the VMM and noting its id: whoever serves the control
// socket is nobody's.
void stopUnknownVmm(const std::string& directory) {
  const std::string socket = directory + "/" + kControlSocket;
  if (!fileExists(socket)) return;
  try {
    commandVmm(socket, "stop");
    log::info("stopped a virtual machine that was not recorded: " + directory);
  } catch (const Error&) {
    // Nobody serves it.
  }
}

// Nothing where an engine before this one's time wrote none.
MachineSize sizeOf(const std::string& directory) {
  MachineSize size;
  try {
    std::istringstream(readFile(directory + "/" + kSizeFile, kMaxSizeFileBytes)) >>
        size.memory_mib >> size.vcpus;
  } catch (const Error& error) {
    log::debug(std::string("size of a virtual machine: ") + error.what());
  }
  return size;
}

}  // namespace

std::unique_ptr<Vm> Vm::start(const VmResources& resources, VmSpec spec) {
  return inContext("start virtual machine", [&]() -> std::unique_ptr<Vm> {
    const std::string directory = spec.directory;
    Quota::Lease lease = resources.quota->take({spec.memory_mib, spec.vcpus});
    Launch launch(resources, std::move(spec));
    launch.spawn();
    Fd control = launch.greet();
    auto core =
        std::make_shared<VmCore>(directory, launch.commit(), std::move(control), std::move(lease));
    return std::make_unique<MachineVm>(std::move(core), false);
  });
}

std::unique_ptr<Vm> Vm::adopt(const VmResources& resources, const std::string& directory) {
  auto process = VmmProcess::find(directory);
  if (!process) {
    if (!fileExists(directory + "/" + kPidFile)) stopUnknownVmm(directory);
    endStrayHelpers(directory);
    return nullptr;
  }
  try {
    const std::string control_socket = directory + "/" + kControlSocket;
    const bool paused = vmmState(control_socket) == VmmState::kPaused;
    // Nobody in a paused guest can answer: it runs for as long as the greeting takes.
    if (paused) commandVmm(control_socket, "resume");
    Fd control = greetGuest(directory, deadlineIn(kAdoptTimeout), process->pidfd());
    if (paused) commandVmm(control_socket, "pause");
    VmProcesses processes{std::move(*process), VmmProcess::find(directory, kSharePidFile),
                          VmmProcess::find(directory, kPasstPidFile)};
    auto core = std::make_shared<VmCore>(directory, std::move(processes), std::move(control),
                                         resources.quota->takeAnyway(sizeOf(directory)));
    return std::make_unique<MachineVm>(std::move(core), paused);
  } catch (const Error& error) {
    // Nothing could ever be asked of it again.
    log::warning("adopt virtual machine " + directory + ": " + error.what() + "; it is ended");
    process->kill(SIGKILL);
    process->waitEnded(static_cast<int>(kTerminateGrace.count()));
    endStrayHelpers(directory);
    return nullptr;
  }
}

std::optional<VmExit> Vm::lastExit(const std::string& directory) {
  if (!fileExists(directory + "/" + kPidFile) || VmmProcess::find(directory)) return std::nullopt;
  return readExitStatus(directory).value_or(VmExit{"killed", {}});
}

}  // namespace hull::engine
