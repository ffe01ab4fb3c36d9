#include "daemon/vm/seat.h"

#include <fcntl.h>
#include <unistd.h>

#include <mutex>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/vm/vm_core.h"
#include "daemon/vm/writable_disk.h"

namespace hull::engine {

namespace {

using std::chrono::milliseconds;

constexpr const char* kSeatFile = "seat";  // "CONTAINER PID OFFSET LENGTH\n"
constexpr size_t kMaxSeatFileBytes = 256;
// Its processes are killed and its file systems unmounted: never in no time.
constexpr milliseconds kLeastLeavingTime = std::chrono::seconds(15);

struct Place {
  std::string host;
  pid_t vmm = 0;  // tells the machine from the host's next one
  uint64_t offset = 0;
  uint64_t length = 0;
};

std::optional<Place> readPlace(const std::string& directory) {
  const std::string path = directory + "/" + kSeatFile;
  if (!fileExists(path)) return std::nullopt;
  Place place;
  std::istringstream text(readFile(path, kMaxSeatFileBytes));
  if (!(text >> place.host >> place.vmm >> place.offset >> place.length)) return std::nullopt;
  return place;
}

class SeatVm final : public Vm {
 public:
  SeatVm(std::shared_ptr<Vm> machine, std::string directory, std::string container, Place place)
      : machine_(std::move(machine)),
        directory_(std::move(directory)),
        container_(std::move(container)),
        place_(std::move(place)) {}
  ~SeatVm() override {
    try {
      if (!abandoned_) leave(kLeastLeavingTime);
    } catch (const std::exception& error) {
      log::warning("container " + container_ + " leaves a machine: " + error.what());
    }
  }

  void onProcessExit(EventFunction function) override {
    const std::lock_guard lock(mutex_);
    exited_ = std::move(function);
    machine_->listen(container_, exited_, ended_);
  }
  void onExit(ExitFunction function) override {
    const std::lock_guard lock(mutex_);
    ended_ = std::move(function);
    machine_->listen(container_, exited_, ended_);
  }
  // Of those that join this one, which is joining its machine.
  void listen(const std::string& container, EventFunction exited, ExitFunction ended) override {
    machine_->listen(container, std::move(exited), std::move(ended));
  }
  void stopListening(const std::string& container) override { machine_->stopListening(container); }
  AddedDisks addDisks(const std::vector<AddedDisk>& disks) override {
    return machine_->addDisks(disks);
  }
  void removeDisks(uint64_t offset, uint64_t length) override {
    machine_->removeDisks(offset, length);
  }

  guest::Message request(const std::string& container, guest::Message message,
                         milliseconds timeout) override {
    return machine_->request(container, std::move(message), timeout);
  }
  Fd openStream(const std::string& container, const guest::OpenStream& stream) override {
    return machine_->openStream(container, stream);
  }
  void setDiskLimits(const DiskLimits&) override {
    throw Error(ErrorKind::kNotSupported,
                "limits of the disk are the machine's, which is another container's");
  }
  void pause() override { machine_->request(container_, guest::Pause{}); }
  void resume() override { machine_->request(container_, guest::Resume{}); }
  VmExit stop(milliseconds grace) override {
    leave(grace);
    return {"terminated", ""};
  }
  bool running() const override {
    const std::lock_guard lock(mutex_);
    return !left_ && machine_->running();
  }
  pid_t vmmPid() const override { return machine_->vmmPid(); }
  void abandon() override {
    abandoned_ = true;
    machine_->stopListening(container_);
  }

 private:
  void leave(milliseconds grace);

  const std::shared_ptr<Vm> machine_;
  const std::string directory_;
  const std::string container_;
  const Place place_;
  std::mutex leaving_;
  mutable std::mutex mutex_;  // below
  EventFunction exited_;
  ExitFunction ended_;
  bool left_ = false;
  std::atomic<bool> abandoned_ = false;
};

// The disks are taken from a guest that does not answer, too.
void SeatVm::leave(milliseconds grace) {
  const std::lock_guard leaving(leaving_);
  if (!running()) {
    machine_->stopListening(container_);
    return forgetSeat(directory_);
  }
  const auto tried = [&](const char* what, auto&& work) {
    try {
      work();
    } catch (const Error& error) {
      const bool expected = error.kind() == ErrorKind::kNotFound || !machine_->running();
      if (!expected) log::warning(what + (" of container " + container_) + ": " + error.what());
    }
  };
  tried("end", [&] {
    machine_->request(container_, guest::RemoveContainer{}, std::max(grace, kLeastLeavingTime));
  });
  tried("take back the disks", [&] { machine_->removeDisks(place_.offset, place_.length); });
  machine_->stopListening(container_);
  forgetSeat(directory_);
  ExitFunction ended;
  {
    const std::lock_guard lock(mutex_);
    left_ = true;
    ended = ended_;
  }
  if (ended) ended({"terminated", ""});
}

image::RootDisk wholeFile(const std::string& path) {
  const uint64_t bytes = fileSize(openFile(path, O_RDONLY).get());
  return {bytes, {{path, 0, 0, bytes}}};
}

std::vector<AddedDisk> disksOf(const std::string& template_disk, const SeatSpec& spec) {
  const std::string writable = spec.directory + "/" + kWritableFile;
  if (!fileExists(writable)) {
    cloneDisk(templateDisk(template_disk, spec.writable_bytes), writable);
  }
  std::vector<AddedDisk> disks{{spec.root, true}, {wholeFile(writable), false}};
  for (const std::string& path : spec.extra_disks) disks.push_back({wholeFile(path), false});
  return disks;
}

}  // namespace

Seat takeSeat(const std::string& template_disk, std::shared_ptr<Vm> machine, const SeatSpec& spec) {
  return inContext("join the machine of container " + spec.host, [&] {
    const Vm::AddedDisks added = machine->addDisks(disksOf(template_disk, spec));
    Seat seat;
    seat.vm =
        std::make_unique<SeatVm>(machine, spec.directory, spec.container,
                                 Place{spec.host, machine->vmmPid(), added.offset, added.length});
    writeFileAtomic(spec.directory + "/" + kSeatFile,
                    spec.host + " " + std::to_string(machine->vmmPid()) + " " +
                        std::to_string(added.offset) + " " + std::to_string(added.length) + "\n");
    guest::PrepareSeat prepare{spec.host, Vm::kWritableDisk, added.parts};
    seat.devices =
        machine->requestFor<guest::SeatPrepared>(spec.container, std::move(prepare)).devices;
    if (seat.devices.size() != added.parts.size()) {
      throw Error(ErrorKind::kCorrupt, "the guest made not as many disks as it was given");
    }
    return seat;
  });
}

std::optional<std::string> seatHost(const std::string& directory) {
  const auto place = readPlace(directory);
  return place ? std::optional(place->host) : std::nullopt;
}

std::unique_ptr<Vm> adoptSeat(std::shared_ptr<Vm> machine, const std::string& directory,
                              const std::string& container) {
  auto place = readPlace(directory);
  if (!place || place->vmm != machine->vmmPid()) {
    forgetSeat(directory);
    return nullptr;
  }
  return std::make_unique<SeatVm>(std::move(machine), directory, container, std::move(*place));
}

void forgetSeat(const std::string& directory) {
  ::unlink((directory + "/" + kSeatFile).c_str());
}

}  // namespace hull::engine
