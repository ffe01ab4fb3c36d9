// Containers: those that run in another one's virtual machine (`--network container:ID`).
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/engine/containers.h"

namespace hull::engine {

namespace {

constexpr std::chrono::seconds kCreateTime{60};
constexpr std::chrono::minutes kFillTime{30};  // of a new volume, with what the image has
constexpr std::chrono::seconds kSweepTime{15};
constexpr size_t kMaxChain = 64;  // of containers that join each other

Error notThere(const Error& error) {
  // Not kNotFound: to a client a 404 of create means a missing image, and it would pull.
  return Error(ErrorKind::kInvalidArgument,
               std::string("joining network namespace of container: ") + error.what());
}

}  // namespace

// The name that was asked for becomes the id: names can change.
void Containers::settleJoining(ContainerDocuments& documents) const {
  const std::string asked = specOf(documents).joins;
  if (asked.empty()) return;
  try {
    setJoined(documents, get(asked)->id());
  } catch (const Error& error) {
    throw notThere(error);
  }
}

// What belongs to the machine.
void Containers::checkJoiner(const ContainerSpec& spec) const {
  if (spec.joins.empty()) return;
  const auto refuse = [](bool asked, const char* what) {
    if (!asked) return;
    throw Error(ErrorKind::kNotSupported,
                std::string(what) +
                    " of a container that joins another one's network: both run in one virtual "
                    "machine, whose they are (give them to the other container)");
  };
  refuse(!spec.limits.cpus.empty(), "--cpuset-cpus");
  refuse(spec.limits.disks != DiskLimits{}, "--device-read-bps and the other limits of the disk");
}

std::shared_ptr<Container> Containers::joinedBy(const Container& container) const {
  std::shared_ptr<Container> other;
  try {
    other = get(container.spec().joins);
  } catch (const Error& error) {
    throw notThere(error);
  }
  const Status status = other->state().status;
  if (status == Status::kRestarting) {
    throw Error(ErrorKind::kConflict,
                "Container " + other->id() + " is restarting, wait until the container is running");
  }
  if (status == Status::kPaused) {
    throw Error(ErrorKind::kConflict,
                "cannot join network of container " + other->id() +
                    ": it is paused, and with it the virtual machine (unpause it first)");
  }
  if (!other->run()) {
    throw Error(ErrorKind::kConflict,
                "cannot join network of a non running container: " + other->id());
  }
  return other;
}

// Whose virtual machine a running container is in.
std::shared_ptr<Container> Containers::machineOf(
    const std::shared_ptr<Container>& container) const {
  auto at = container;
  for (size_t steps = 0; !at->spec().joins.empty(); ++steps) {
    const auto host = seatHost(at->vmFolder());
    if (!host || steps == kMaxChain) {
      throw Error(ErrorKind::kConflict,
                  "cannot join network of a non running container: " + at->id());
    }
    at = get(*host);
  }
  return at;
}

// As boot(), in the machine of the container it joins.
std::unique_ptr<Vm> Containers::sit(Container& container, ContainerState& state) {
  const ContainerSpec& spec = container.spec();
  const auto host = machineOf(joinedBy(container));
  const auto host_run = host->run();
  if (!host_run) {
    throw Error(ErrorKind::kConflict,
                "cannot join network of a non running container: " + host->id());
  }
  container.setHostname(host->hostname());
  SeatSpec wanted;
  wanted.directory = container.vmFolder();
  makeDirectories(wanted.directory, 0711);
  wanted.container = container.id();
  wanted.host = host->id();
  wanted.root = parts_.images->rootDisk(diffIdsOf(container.record()));
  wanted.writable_bytes = spec.limits.writable_disk_bytes == 0 ? options_.writable_disk_bytes
                                                               : spec.limits.writable_disk_bytes;
  const ContainerState machine = host->state();
  state.vm_memory_mib = machine.vm_memory_mib;
  state.vm_vcpus = machine.vm_vcpus;
  try {
    GuestMounts mounts = guestMounts(container);
    wanted.extra_disks = std::move(mounts.disks);
    Seat seat = parts_.take_seat(host_run->vm(), wanted);
    auto message = createMessage(spec, container.hostname(), "", "", true);
    message.root_disk = seat.devices.at(0);
    message.writable_disk = seat.devices.at(1);
    for (guest::Mount& mount : mounts.mounts) {
      for (size_t n = 0; n < wanted.extra_disks.size(); ++n) {
        if (mount.source == Vm::extraDisk(n)) {
          mount.source = seat.devices.at(n + 2);
          break;
        }
      }
      message.mounts.push_back(std::move(mount));
    }
    seat.vm->request(container.id(), std::move(message),
                     mounts.initialises ? kFillTime : kCreateTime);
    if (mounts.initialises) noteInitialised(container);
    if (spec.limits.cpu_quota_us != 0 || spec.limits.memory_low_bytes != 0) {
      seat.vm->request(container.id(), limitsMessage(spec));
    }
    return std::move(seat.vm);
  } catch (...) {
    volumes_.detachDisks(container.id());
    throw;
  }
}

// The seat that an earlier engine process left in `folder`; null: none, or its machine has ended.
std::unique_ptr<Vm> Containers::adoptSeatOf(const std::string& id,
                                            const std::string& folder) const {
  const auto host = seatHost(folder);
  if (!host) return nullptr;
  std::shared_ptr<Run> run;
  {
    const std::lock_guard lock(mutex_);
    const auto found = containers_.find(*host);
    if (found != containers_.end()) run = found->second->run();
  }
  if (run) return adoptSeat(run->vm(), folder, id);
  forgetSeat(folder);
  return nullptr;
}

std::unique_ptr<Vm> Containers::adoptPlace(Container& container) {
  auto seat = adoptSeatOf(container.id(), container.vmFolder());
  if (!seat) return parts_.adopt_vm(container.vmFolder());
  container.setHostname(get(*seatHost(container.vmFolder()))->hostname());
  return seat;
}

// Of those that run in its machine.
std::vector<std::shared_ptr<ExitWait>> Containers::endsOfJoiners(const Container& container) const {
  std::vector<std::shared_ptr<ExitWait>> ends;
  for (const auto& each : list()) {
    if (each->spec().joins.empty() || !each->run()) continue;
    if (seatHost(each->vmFolder()) != container.id()) continue;
    ends.push_back(each->wait(Container::WaitCondition::kNotRunning));
  }
  return ends;
}

// Guests' containers that no container of ours is: of a start that the engine's death cut short. A
// guest may take its time, or lie: nobody waits for this.
void Containers::sweepSeats() {
  for (const auto& container : list()) {
    const auto run = container->run();
    if (!run || !container->spec().joins.empty()) continue;
    tasks_.run("strays beside " + container->id(), [this, container, run] {
      try {
        const auto vm = run->vm();
        const auto state = vm->requestFor<guest::StateReply>("", guest::ListState{});
        for (const auto& listed : state.containers) {
          if (listed.id != container->id()) sweepSeat(listed.id, *vm);
        }
      } catch (const Error& error) {
        log::debug("look for strays beside " + container->id() + ": " + error.what());
      }
    });
  }
}

void Containers::sweepSeat(const std::string& id, Vm& machine) {
  std::shared_ptr<Container> ours;
  {
    const std::lock_guard lock(mutex_);
    const auto found = containers_.find(id);
    if (found != containers_.end()) ours = found->second;
  }
  std::unique_lock<std::mutex> operation;
  if (ours) {
    if (ours->run() || ours->spec().joins.empty()) return;
    // One that is being started, by its restart policy, is no stray.
    operation = ours->operation();
    if (ours->run()) return;
  }
  log::info("end what is left of container " + id + " in another one's machine");
  machine.request(id, guest::RemoveContainer{}, kSweepTime);
}

}  // namespace hull::engine
