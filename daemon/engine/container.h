// One container: its record, its state, what is attached to it, and its virtual machine while it
// runs. Shared by the engine's tasks and the API's connections; any thread. What happens to a
// container is decided by Containers (containers.h); this class keeps the pieces consistent and
// wakes who waits. Its mutex is never held over a call to a VM, a disk or a client.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/engine/state_db.h"
#include "daemon/vm/guest_socket.h"
#include "daemon/vm/process_output.h"
#include "daemon/vm/vm.h"

namespace hull::engine {

// A VM that executes a container's processes, from boot to power-off, and what it reported.
class Run : public std::enable_shared_from_this<Run> {
 public:
  explicit Run(std::string container_id) : container_(std::move(container_id)) {}

  // Takes the VM and listens to it. `exec_exited` is called for every process but the main one.
  using ExecExit = std::function<void(const guest::ProcessExited&)>;
  void take(std::unique_ptr<Vm> vm, ExecExit exec_exited);
  std::shared_ptr<Vm> vm() const;  // throws kConflict when it is gone
  std::shared_ptr<Vm> release();   // for its end; null the second time
  // While it runs; endService() waits for what is under way, which the VM's end cuts short.
  void serve(std::unique_ptr<GuestSocket> socket);
  void endService();
  guest::Message request(guest::Message message) {
    return vm()->request(container_, std::move(message));
  }
  Fd openStream(const guest::OpenStream& stream) { return vm()->openStream(container_, stream); }

  void noteExit(const guest::ProcessExited& exit);  // the first one counts
  void noteVmExit(const VmExit& exit);
  // Blocks until the main process or the whole VM has ended, or abandon().
  struct End {
    std::optional<guest::ProcessExited> process;
    std::optional<VmExit> vm;
    bool abandoned = false;
  };
  End waitEnd();
  bool waitOverFor(std::chrono::nanoseconds time);  // true when one of these has happened
  bool ended() const;
  void abandon();  // the engine goes, the VM stays

 private:
  const std::string container_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Vm> vm_;
  End end_;
  std::unique_ptr<GuestSocket> socket_;  // uses this
};

struct ExitResult {
  int exit_code = 0;
  std::string error;
};

// One client that waits for a container's end; registered from its creation on.
class ExitWait {
 public:
  std::optional<ExitResult> get();  // blocks; nullopt once cancelled
  std::optional<ExitResult> getFor(std::chrono::milliseconds time);
  void cancel();
  void resolve(const ExitResult& result);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<ExitResult> result_;
  bool cancelled_ = false;
};

class Container {
 public:
  enum class WaitCondition { kNotRunning, kNextExit, kRemoved };

  Container(ContainerRecord record, ContainerState state, std::string folder);

  const std::string& id() const { return id_; }
  // Valid as long as the container, also when setDocuments() has replaced it meanwhile.
  const ContainerSpec& spec() const { return *spec_; }
  std::string name() const;
  int64_t createdNs() const { return created_ns_; }
  const std::string& image() const { return image_; }  // as asked
  const std::string& imageId() const { return image_id_; }
  ContainerRecord record() const;  // a copy, documents and all: not for every one of thousands
  std::vector<MountPoint> mounts() const;
  ContainerState state() const;
  std::string hostname() const;
  void setHostname(const std::string& name);  // that of the container it has joined
  const std::string& folder() const { return folder_; }
  std::string vmFolder() const { return folder_ + "/vm"; }
  std::string logPath() const { return folder_ + "/container-json.log"; }

  // The output of this run, or of the next one when it does not run: attach comes before start.
  std::shared_ptr<ProcessOutput> output();
  std::shared_ptr<ProcessOutput> liveOutput() const;  // null when it does not run
  std::shared_ptr<Run> run() const;                   // null when it does not run
  // Blocks until it runs; null once `cancelled` (call wake() after it became true) or removed.
  std::shared_ptr<Run> awaitRun(const std::function<bool()>& cancelled);
  void wake();

  std::shared_ptr<ExitWait> wait(WaitCondition condition);

  // --- for Containers ---
  // Held by start, removal, a helper VM and the end of a run: one of them at a time.
  std::unique_lock<std::mutex> operation() { return std::unique_lock(operation_); }
  void setName(const std::string& name);
  void setDocuments(const ContainerDocuments& documents);
  void setMounts(std::vector<MountPoint> mounts);
  ContainerState change(const std::function<void(ContainerState&)>& edit);
  void beginRun(std::shared_ptr<Run> run);
  void endRun(const ExitResult& result);  // after the state says exited; wakes who waits
  void dropOutput();                      // a start failed: whoever is attached is let go
  // While `hold` lives, the end of a run does not remove an --rm container (restart).
  void holdRemoval(const std::weak_ptr<void>& hold);
  bool removalHeld() const;
  void markRemoved();
  bool removed() const;

 private:
  const std::string id_;
  const std::string folder_;
  const int64_t created_ns_;
  const std::string image_;
  const std::string image_id_;
  std::mutex operation_;
  mutable std::mutex mutex_;  // everything below
  std::condition_variable changed_;
  ContainerRecord record_;
  std::string joined_hostname_;
  std::vector<std::unique_ptr<const ContainerSpec>> specs_;  // of the record, and its former ones
  std::atomic<const ContainerSpec*> spec_;
  ContainerState state_;
  std::shared_ptr<Run> run_;
  std::shared_ptr<ProcessOutput> output_;
  std::list<std::pair<WaitCondition, std::shared_ptr<ExitWait>>> waits_;
  std::weak_ptr<void> removal_hold_;
  bool removed_ = false;
};

}  // namespace hull::engine
