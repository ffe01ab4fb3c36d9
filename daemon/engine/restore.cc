// Containers: what an earlier engine process left, and the end of this one.
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/door.h"
#include "daemon/engine/execs.h"

namespace hull::engine {

namespace {
constexpr int kKilledExitCode = 137;
constexpr std::chrono::seconds kStrayPowerOffTime{5};

// One that has just ended may have been forgotten already, when its end was told.
void forgetExec(Vm& vm, const std::string& container, const std::string& process) {
  try {
    vm.request(container, guest::ForgetProcess{process});
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
  }
}

}  // namespace

void Containers::restore(Execs& execs) {
  execs_ = &execs;
  std::set<std::string> recorded;  // also those that cannot be restored: their folders stay
  for (auto& row : db_.load()) {
    recorded.insert(row.record.id);
    for (const MountPoint& mount : row.record.mounts) {
      if (mount.type == MountType::kVolume) volumes_.use(mount.name, row.record.id);
    }
    try {
      std::vector<image::Digest> layers;
      for (const auto& text : row.record.diff_ids) layers.push_back(image::Digest::parse(text));
      const auto container =
          std::make_shared<Container>(row.record, row.state, folderOf(row.record.id));
      const std::lock_guard lock(mutex_);
      pins_.emplace(row.record.id, parts_.images->pinLayers(layers));
      containers_.emplace(row.record.id, container);
    } catch (const Error& error) {
      log::error("restore container " + row.record.id + ": " + error.what());
    }
  }
  // Machines before those who have only joined one.
  for (const bool joined : {false, true}) {
    for (const auto& container : list()) {
      if (container->spec().joins.empty() == joined) continue;
      try {
        restoreOne(container);
      } catch (const Error& error) {
        log::error("restore container " + container->id() + ": " + error.what());
      }
    }
  }
  sweepFolders(recorded);
  sweepSeats();
}

// The VM of an earlier engine process, taken over. False when there is none.
bool Containers::adoptRun(const std::shared_ptr<Container>& container) {
  auto place = adoptPlace(*container);
  if (!place) return false;
  const auto run = std::make_shared<Run>(container->id());
  // Listening first: no exit is between what is told and what is listed.
  run->take(std::move(place), execExit(run));
  const auto vm = run->vm();
  const auto state = vm->requestFor<guest::StateReply>("", guest::ListState{});
  bool found = false;
  for (const auto& listed : state.containers) {
    if (listed.id != container->id()) continue;
    for (const auto& process : listed.processes) {
      if (process.process != guest::kMainProcess) {
        if (!process.running) forgetExec(*vm, container->id(), process.process);
        continue;
      }
      found = true;
      if (!process.running) {
        run->noteExit({process.process, process.exit_code, process.out_of_memory});
      }
    }
  }
  if (!found) {
    run->release();
    vm->stop(kStrayPowerOffTime);
    return false;
  }
  volumes_.attachDisks(diskVolumes(*container), container->id());
  if (container->spec().network && parts_.network) {
    parts_.network->reattach(container->id());
    const auto ports = container->state().ports;
    if (!ports.empty()) parts_.network->publish(container->id(), ports);
  }
  beginOutput(*container, run);
  beginSocket(*container, run);
  container->beginRun(run);
  log::info("container " + container->id() + " runs on");
  tasks_.run("container " + container->id(), [this, container, run] { follow(container, run); });
  watchHealth(container, run);
  return true;
}

void Containers::restoreOne(const std::shared_ptr<Container>& container) {
  const ContainerState state = container->state();
  if (state.status == Status::kRemoving) {
    const auto operation = container->operation();
    return removeLocked(container, false);
  }
  if (state.running()) {
    try {
      if (adoptRun(container)) return;
    } catch (const Error& error) {
      log::warning("adopt container " + container->id() + ": " + error.what());
    }
    const auto last = parts_.last_vm_exit(container->vmFolder());
    save(*container, [&](ContainerState& changed) {
      changed.status = Status::kExited;
      changed.exit_code = kKilledExitCode;
      changed.error = last ? "the virtual machine ended while no engine ran: " + last->reason : "";
      changed.finished_ns = nowNs();
      changed.pid = 0;
      forgetPlaces(changed);
    });
    container->endRun({kKilledExitCode, ""});
    detachNetwork(*container);
    if (container->spec().auto_remove) {
      const auto operation = container->operation();
      return removeLocked(container, true);
    }
  } else if (auto stray = adoptPlace(*container)) {
    // A start or an end that the engine's death cut short.
    stray->stop(kStrayPowerOffTime);
    stray.reset();
    detachNetwork(*container);
  }
  // A stop by hand lasts until the engine's end with "always", and beyond it with "unless-stopped".
  const RestartPolicy policy = container->spec().restart;
  const bool standing = policy == RestartPolicy::kAlways ||
                        (policy == RestartPolicy::kUnlessStopped && !state.stopped_by_user);
  const bool again = state.status == Status::kRestarting ||
                     (state.running() && wantsRestart(*container, kKilledExitCode)) ||
                     (standing && state.status == Status::kExited);
  if (!again) return;
  save(*container, [](ContainerState& changed) {
    changed.status = Status::kRestarting;
    changed.stopped_by_user = false;
  });
  tasks_.run("restart " + container->id(), [this, container] { restartLater(container); });
}

void Containers::sweepFolders(const std::set<std::string>& recorded) {
  std::error_code failed;
  for (const auto& entry :
       std::filesystem::directory_iterator(options_.root + "/containers", failed)) {
    const std::string id = entry.path().filename().string();
    if (recorded.contains(id)) continue;
    log::info("remove what is left of " + id);
    try {
      const std::string folder = entry.path().string() + "/vm";
      if (auto seat = adoptSeatOf(id, folder)) seat->stop(kStrayPowerOffTime);
      if (auto stray = parts_.adopt_vm(folder)) stray->stop(kStrayPowerOffTime);
      if (parts_.network) parts_.network->detach(id);
    } catch (const Error& error) {
      log::warning("end what is left of " + id + ": " + error.what());
    }
    std::error_code ignored;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

void Containers::shutdown() {
  {
    const std::lock_guard lock(stopping_mutex_);
    if (stopping_) return;
    stopping_ = true;
    stopping_changed_.notify_all();
  }
  door_.close();  // a container's connection may wait for it to open
  for (const auto& container : list()) {
    const auto run = container->run();
    if (!run) continue;
    if (!options_.stop_containers) {
      run->abandon();
      continue;
    }
    try {
      stop(container, {});
    } catch (const Error& error) {
      log::warning("stop container " + container->id() + ": " + error.what());
    }
  }
  tasks_.wait();
}

}  // namespace hull::engine
