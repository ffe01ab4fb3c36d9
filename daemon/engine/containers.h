// All containers of the engine and what can be done with them. Their truth is in StateDb; this
// class carries it out with VMs, brings back at start-up what an earlier engine process left (it
// may have been killed at any instant), and follows every running container with a task of its own
// until its end. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/engine/container.h"
#include "daemon/engine/engine_parts.h"
#include "daemon/engine/events.h"
#include "daemon/engine/tasks.h"
#include "daemon/engine/volumes.h"

namespace hull::engine {

class Door;
class Execs;
class Networks;
struct NetworkRecord;

struct StopOptions {
  std::optional<std::string> signal;  // default: the container's, SIGTERM
  std::optional<int64_t> timeout_s;   // default: the container's, 10; negative: wait without end
};

class Containers {
 public:
  Containers(EngineParts& parts, const EngineOptions& options, EventBus& events, Networks& networks,
             Door& door);
  ~Containers();

  // Adopts what runs, finishes what ended, sweeps what is half made, applies restart policies.
  void restore(Execs& execs);
  // Running containers stay (or are stopped, EngineOptions); nothing may be called afterwards.
  void shutdown();

  struct Created {
    std::string id;
    std::vector<std::string> warnings;
  };
  Created create(std::string_view body, std::string_view name, const std::string& platform);

  // By id, unique id prefix or name ("/name" too). Throws kNotFound "No such container: …".
  std::shared_ptr<Container> get(std::string_view name) const;
  std::vector<std::shared_ptr<Container>> list() const;  // newest first

  bool start(const std::shared_ptr<Container>& container);  // false: it runs already
  bool stop(const std::shared_ptr<Container>& container, const StopOptions& options);
  void restart(const std::shared_ptr<Container>& container, const StopOptions& options);
  void kill(const std::shared_ptr<Container>& container, const std::string& signal);
  void pause(const std::shared_ptr<Container>& container);
  void unpause(const std::shared_ptr<Container>& container);
  void rename(const std::shared_ptr<Container>& container, std::string_view name);
  // `volumes`: those that were made for it alone, too.
  void remove(const std::shared_ptr<Container>& container, bool force, bool volumes = false);
  // Body of POST /containers/{id}/update; returns warnings. Throws kConflict when a running virtual
  // machine cannot be given what is asked.
  std::vector<std::string> update(const std::shared_ptr<Container>& container,
                                  std::string_view body);
  void resize(const std::shared_ptr<Container>& container, uint16_t rows, uint16_t columns);
  // Also while it runs. Throw kForbidden when it is in the network already, or is not.
  void connect(const std::shared_ptr<Container>& container, const NetworkRecord& network,
               Endpoint endpoint);
  void disconnect(const std::shared_ptr<Container>& container, const NetworkRecord& network);

  // Calls `work` with the container's VM: the running one, or one booted for this only.
  using GuestWork = std::function<void(Vm& vm)>;
  void withGuest(const std::shared_ptr<Container>& container, const GuestWork& work);

  bool usesImage(const image::Digest& image) const;
  void publish(const Container& container, std::string action,
               std::map<std::string, std::string> more = {});
  TaskGroup& tasks() { return tasks_; }
  Volumes& volumes() { return volumes_; }

 private:
  std::unique_ptr<Vm> boot(Container& container, bool with_network, ContainerState& state);
  // Of a container in another one's machine (joined.cc).
  void settleJoining(ContainerDocuments& documents) const;
  void checkJoiner(const ContainerSpec& spec) const;
  std::shared_ptr<Container> joinedBy(const Container& container) const;
  std::shared_ptr<Container> machineOf(const std::shared_ptr<Container>& container) const;
  std::unique_ptr<Vm> sit(Container& container, ContainerState& state);
  std::unique_ptr<Vm> adoptSeatOf(const std::string& id, const std::string& folder) const;
  std::unique_ptr<Vm> adoptPlace(Container& container);
  std::vector<std::shared_ptr<ExitWait>> endsOfJoiners(const Container& container) const;
  void sweepSeats();
  void sweepSeat(const std::string& id, Vm& machine);
  void launch(const std::shared_ptr<Container>& container);
  struct GuestMounts {
    std::vector<VmShare> shares;
    std::vector<std::string> disks;
    std::vector<guest::Mount> mounts;
    bool initialises = false;
  };
  void insert(ContainerRecord& record, const ContainerState& state, std::string_view name);
  // `disks_only`: a volume that is made now is a disk.
  MountPoint volumePoint(MountRequest request, const std::string& container, bool disks_only);
  // Appends to `points`, also when it throws: what is in there then must be given up.
  void resolveMounts(const ContainerSpec& spec, const std::string& container,
                     std::vector<MountPoint>& points);
  std::vector<std::string> diskVolumes(const Container& container) const;
  void checkBind(MountPoint& point) const;
  VmShare shareOf(const MountPoint& point);
  GuestMounts guestMounts(const Container& container);
  void fillReadOnly(Container& container);
  void noteInitialised(Container& container);
  void publishMounts(const Container& container, const char* action);
  void removeOwnVolumes(const std::vector<MountPoint>& mounts);
  void beginSocket(const Container& container, const std::shared_ptr<Run>& run);
  void beginOutput(Container& container, const std::shared_ptr<Run>& run);
  void signalMain(const std::shared_ptr<Container>& container, uint32_t number);
  void killAndWait(const std::shared_ptr<Container>& container);
  Network& networkFor(const Container& container) const;
  std::vector<Attachment> attachNetworks(Container& container, ContainerState& state);
  void configureCards(Vm& vm, const std::vector<Attachment>& cards);
  std::vector<PortMapping> publishPorts(const Container& container,
                                        const std::vector<Attachment>& cards);
  void refreshGuest(Container& container, unsigned changed_slot);
  void detachNetwork(const Container& container);
  void follow(const std::shared_ptr<Container>& container, const std::shared_ptr<Run>& run);
  void finish(const std::shared_ptr<Container>& container, const std::shared_ptr<Run>& run,
              const Run::End& end);
  [[noreturn]] void failStart(const std::shared_ptr<Container>& container, const Error& error,
                              int exit_code);
  bool wantsRestart(const Container& container, int exit_code) const;
  bool waitBeforeRestart(const std::shared_ptr<Container>& container);
  bool restartOnce(const std::shared_ptr<Container>& container);
  void restartLater(const std::shared_ptr<Container>& container);
  void wakeRestarts();
  Run::ExecExit execExit(const std::shared_ptr<Run>& run);
  HealthProbe probe(const std::shared_ptr<Container>& container);
  void recordProbe(const std::shared_ptr<Container>& container, HealthProbe probe);
  void watchHealth(const std::shared_ptr<Container>& container, const std::shared_ptr<Run>& run);
  void removeLocked(const std::shared_ptr<Container>& container, bool volumes);
  void sweepFolders(const std::set<std::string>& recorded);
  void restoreOne(const std::shared_ptr<Container>& container);
  bool adoptRun(const std::shared_ptr<Container>& container);
  void save(Container& container, const std::function<void(ContainerState&)>& edit);
  std::string folderOf(const std::string& id) const;

  EngineParts& parts_;
  const EngineOptions& options_;
  EventBus& events_;
  Networks& networks_;
  Door& door_;
  Execs* execs_ = nullptr;
  StateDb db_;
  Volumes volumes_;
  mutable std::mutex mutex_;                                      // the map
  std::map<std::string, std::shared_ptr<Container>> containers_;  // by id
  std::map<std::string, std::shared_ptr<void>> pins_;  // the layers of each, against collection
  std::mutex stopping_mutex_;
  std::condition_variable stopping_changed_;
  bool stopping_ = false;
  TaskGroup tasks_;
};

// How a container's guest is set up; shared with the helper VMs and tests.
guest::CreateContainer createMessage(const ContainerSpec& spec, const std::string& hostname,
                                     const std::string& address, const std::string& gateway,
                                     bool writable_disk);
// The same with the container's places in networks.
guest::CreateContainer createMessage(const ContainerSpec& spec, const std::string& hostname,
                                     const std::vector<Attachment>& cards, bool writable_disk);
// How other members of the network find it.
std::vector<std::string> dnsNamesOf(const Container& container, const Endpoint& endpoint);
void forgetPlaces(ContainerState& state);  // of a container that has ended
guest::SetLimits limitsMessage(const ContainerSpec& spec);
guest::StartProcess mainProcess(const ContainerSpec& spec, const std::string& hostname);
std::string seccompOf(const ContainerSpec& spec);  // compiled; empty: none
// The guest's refusal to start a program in the words that clients derive exit codes from, and the
// exit code itself (126, 127, 128).
struct StartFailure {
  std::string message;
  int exit_code = 128;
};
StartFailure startFailure(const Error& error, const std::string& program);
std::vector<image::Digest> diffIdsOf(const ContainerRecord& record);
uint64_t vmMemoryMib(uint64_t limit_bytes, uint64_t default_bytes);

}  // namespace hull::engine
