// Containers: a run from boot to end.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/cpu_placement.h"
#include "daemon/engine/execs.h"
#include "daemon/vm/network_card.h"

namespace hull::engine {

namespace {

constexpr std::chrono::seconds kPowerOffTime{10};
constexpr std::chrono::seconds kOutputDrainTime{10};
constexpr std::chrono::seconds kJoinersEndTime{10};
constexpr std::chrono::seconds kCreateTime{60};
constexpr std::chrono::minutes kFillTime{30};     // of a new volume, with what the image has
constexpr int64_t kStableRunNs = 10'000'000'000;  // a longer run starts restart delays anew
constexpr int kKilledExitCode = 137;

}  // namespace

// Boots a VM on the container's disks and makes its container; the network only `with_network`.
// On failure nothing is left behind. `state` gets endpoints and ports.
std::unique_ptr<Vm> Containers::boot(Container& container, bool with_network,
                                     ContainerState& state) {
  const ContainerSpec& spec = container.spec();
  VmSpec vm_spec;
  vm_spec.directory = container.vmFolder();
  makeDirectories(vm_spec.directory, 0711);
  vm_spec.memory_mib = vmMemoryMib(spec.memory_bytes, options_.default_memory_bytes);
  vm_spec.vcpus = spec.vcpus == 0 ? options_.default_vcpus : spec.vcpus;
  vm_spec.root = parts_.images->rootDisk(diffIdsOf(container.record()));
  vm_spec.writable_bytes = spec.limits.writable_disk_bytes == 0 ? options_.writable_disk_bytes
                                                                : spec.limits.writable_disk_bytes;
  vm_spec.disk_limits = spec.limits.disks;
  state.vm_memory_mib = vm_spec.memory_mib;
  state.vm_vcpus = vm_spec.vcpus;
  std::vector<Attachment> cards;
  if (with_network) cards = attachNetworks(container, state);
  for (Attachment& card : cards) vm_spec.networks.push_back(networkCard(card));
  try {
    GuestMounts mounts = guestMounts(container);
    vm_spec.shares = std::move(mounts.shares);
    vm_spec.extra_disks = std::move(mounts.disks);
    auto vm = parts_.start_vm(std::move(vm_spec));
    configureCards(*vm, cards);
    state.ports = publishPorts(container, cards);
    auto message = createMessage(spec, container.hostname(), cards, true);
    message.sysctls.insert(message.sysctls.begin(), options_.default_sysctls.begin(),
                           options_.default_sysctls.end());
    message.mounts.insert(message.mounts.end(), mounts.mounts.begin(), mounts.mounts.end());
    vm->request(container.id(), std::move(message), mounts.initialises ? kFillTime : kCreateTime);
    if (mounts.initialises) noteInitialised(container);
    if (spec.limits.cpu_quota_us != 0 || spec.limits.memory_low_bytes != 0) {
      vm->request(container.id(), limitsMessage(spec));
    }
    placeOnCpus(vm->vmmPid(), spec.limits);
    return vm;
  } catch (...) {
    volumes_.detachDisks(container.id());
    if (with_network) detachNetwork(container);
    throw;
  }
}

bool Containers::start(const std::shared_ptr<Container>& container) {
  const auto operation = container->operation();
  const ContainerState state = container->state();
  if (state.status == Status::kRunning) return false;
  if (container->removed()) {
    throw Error(ErrorKind::kNotFound, "No such container: " + container->id());
  }
  checkStep(Step::kStart, state.status, container->id());
  container->change([](ContainerState& changed) { changed.restarts = changed.quick_ends = 0; });
  launch(container);
  return true;
}

void Containers::launch(const std::shared_ptr<Container>& container) {
  const ContainerSpec& spec = container->spec();
  const auto run = std::make_shared<Run>(container->id());
  ContainerState started;
  const auto undo = [&] {
    if (const auto vm = run->release()) vm->stop(std::chrono::milliseconds(0));
    run->endService();
    volumes_.detachDisks(container->id());
    detachNetwork(*container);
  };
  try {
    fillReadOnly(*container);
    run->take(
        spec.joins.empty() ? boot(*container, spec.network, started) : sit(*container, started),
        execExit(run));
    started.pid = run->vm()->vmmPid();
    container->output();  // made now, so that its failure is a failure to start
  } catch (const Error& error) {
    undo();
    failStart(container, error, 128);
  }
  try {
    run->vm()->requestFor<guest::ProcessStarted>(container->id(),
                                                 mainProcess(spec, container->hostname()));
    beginOutput(*container, run);
    beginSocket(*container, run);
  } catch (const Error& error) {
    undo();
    const StartFailure failure = startFailure(error, spec.arguments.at(0));
    failStart(container,
              Error(ErrorKind::kInvalidArgument,
                    "failed to create task for container: " + failure.message),
              failure.exit_code);
  }
  save(*container, [&](ContainerState& state) {
    state.status = Status::kRunning;
    state.exit_code = 0;
    state.out_of_memory = false;
    state.error.clear();
    state.started_ns = nowNs();
    state.finished_ns = 0;
    state.stopped_by_user = false;
    state.pid = started.pid;
    state.vm_memory_mib = started.vm_memory_mib;
    state.vm_vcpus = started.vm_vcpus;
    state.ports = started.ports;
    if (spec.network) state.endpoints = started.endpoints;
    state.health = {};
    if (!spec.health.command.empty()) state.health.status = HealthStatus::kStarting;
  });
  container->beginRun(run);
  publishMounts(*container, "mount");
  publish(*container, "start");
  tasks_.run("container " + container->id(), [this, container, run] { follow(container, run); });
  watchHealth(container, run);
}

// One that an earlier engine process started is nobody's any more: the guest need not keep it.
Run::ExecExit Containers::execExit(const std::shared_ptr<Run>& run) {
  return [this, weak = std::weak_ptr<Run>(run)](const guest::ProcessExited& exit) {
    if (execs_->noteExit(exit)) return;
    const auto ours = weak.lock();
    if (!ours) return;
    try {
      ours->request(guest::ForgetProcess{exit.process});
    } catch (const Error& error) {
      log::debug("forget process " + exit.process + ": " + error.what());
    }
  };
}

void Containers::beginOutput(Container& container, const std::shared_ptr<Run>& run) {
  container.output()->begin([&](OutputKind kind, uint64_t offset) {
    guest::OpenStream open;
    open.process = guest::kMainProcess;
    open.kind = kind == OutputKind::kStdout ? guest::OpenStream::Kind::kStdout
                                            : guest::OpenStream::Kind::kStderr;
    open.offset = offset;
    return run->openStream(open);
  });
}

void Containers::failStart(const std::shared_ptr<Container>& container, const Error& error,
                           int exit_code) {
  container->dropOutput();
  save(*container, [&](ContainerState& state) {
    // Docker leaves a container that never ran "created".
    state.status = state.started_ns == 0 ? Status::kCreated : Status::kExited;
    state.exit_code = exit_code;
    state.error = error.what();
  });
  container->endRun({exit_code, ""});  // the start's answer tells the error
  if (container->spec().auto_remove) removeLocked(container, true);
  throw error;
}

// The task of a running container.
void Containers::follow(const std::shared_ptr<Container>& container,
                        const std::shared_ptr<Run>& run) {
  const Run::End end = run->waitEnd();
  if (end.abandoned) {
    if (const auto output = container->liveOutput()) output->stop();
    if (const auto vm = run->release()) vm->abandon();
    run->endService();
    execs_->containerEnded(container->id());
    return;
  }
  finish(container, run, end);
}

void Containers::finish(const std::shared_ptr<Container>& container,
                        const std::shared_ptr<Run>& run, const Run::End& end) {
  bool again = false;
  {
    const auto operation = container->operation();
    // No output is lost: it is in the log before the exit is recorded. A VM that is gone has closed
    // its streams.
    if (const auto output = container->liveOutput()) {
      output->waitEnded(kOutputDrainTime);
      output->stop();
    }
    const int exit_code = end.process ? end.process->exit_code : kKilledExitCode;
    const std::string cause =
        end.process ? "" : "the virtual machine ended: " + end.vm->reason + " " + end.vm->detail;
    if (!end.process && end.vm->reason != "terminated" && end.vm->reason != "killed") {
      log::warning("container " + container->id() + ": " + cause);
    }
    const bool remove = container->spec().auto_remove && !container->removalHeld();
    again = !remove && wantsRestart(*container, exit_code);
    save(*container, [&](ContainerState& state) {
      state.status = again ? Status::kRestarting : Status::kExited;
      state.exit_code = exit_code;
      state.out_of_memory = end.process && end.process->out_of_memory;
      state.finished_ns = nowNs();
      const bool stable = state.finished_ns - state.started_ns > kStableRunNs;
      state.quick_ends = stable ? 0 : state.quick_ends + 1;
      state.pid = 0;
      forgetPlaces(state);
    });
    if (end.process && end.process->out_of_memory) publish(*container, "oom");
    publish(*container, "die", {{"exitCode", std::to_string(exit_code)}});
    execs_->containerEnded(container->id());
    container->endRun({exit_code, ""});
    // What is removed anyway need not be synced.
    const auto joiners = endsOfJoiners(*container);
    const bool in_a_hurry = remove && container->mounts().empty() && joiners.empty();
    if (const auto vm = run->release()) {
      vm->stop(in_a_hurry ? std::chrono::milliseconds(0) : kPowerOffTime);
    }
    run->endService();
    // Whoever starts it again finds those ended that were in the machine before.
    for (const auto& joiner : joiners) joiner->getFor(kJoinersEndTime);
    volumes_.detachDisks(container->id());
    publishMounts(*container, "unmount");
    detachNetwork(*container);
    if (remove) removeLocked(container, true);
  }
  if (again) restartLater(container);
}

// --- helper VMs ---

void Containers::withGuest(const std::shared_ptr<Container>& container, const GuestWork& work) {
  if (container->state().status == Status::kPaused) {
    throw Error(ErrorKind::kConflict, "Container " + container->id() +
                                          " is paused: unpause it first, its files can be reached "
                                          "through its virtual machine only");
  }
  if (const auto run = container->run()) {
    const auto vm = run->vm();
    return work(*vm);
  }
  const auto operation = container->operation();
  if (container->removed()) {
    throw Error(ErrorKind::kNotFound, "No such container: " + container->id());
  }
  if (const auto run = container->run()) return work(*run->vm());  // started while we waited
  ContainerState ignored;
  const auto vm = boot(*container, false, ignored);
  const auto end = [&] {
    vm->stop(kPowerOffTime);  // orderly: the disk stays
    volumes_.detachDisks(container->id());
  };
  try {
    work(*vm);
  } catch (...) {
    end();
    throw;
  }
  end();
}

}  // namespace hull::engine
