#include "daemon/engine/container.h"

#include <utility>

#include "base/error.h"
#include "daemon/engine/names.h"

namespace hull::engine {

// --- Run ---

void Run::take(std::unique_ptr<Vm> vm, ExecExit exec_exited) {
  std::shared_ptr<Vm> taken = std::move(vm);
  {
    const std::lock_guard lock(mutex_);
    vm_ = taken;
  }
  // Weak: the VM may outlive the run in the hands of an API connection. Of a container that has
  // joined it and is not listened to (an engine has just taken the VM over), ListState tells.
  taken->onProcessExit(
      [weak = weak_from_this(), ours = container_, exec_exited = std::move(exec_exited)](
          const std::string& container, const guest::ProcessExited& exit) {
        if (container != ours) return;
        if (exit.process == guest::kMainProcess) {
          if (const auto run = weak.lock()) run->noteExit(exit);
        } else {
          exec_exited(exit);
        }
      });
  taken->onExit([weak = weak_from_this()](const VmExit& exit) {
    if (const auto run = weak.lock()) run->noteVmExit(exit);
  });
}

std::shared_ptr<Vm> Run::vm() const {
  const std::lock_guard lock(mutex_);
  if (!vm_) throw Error(ErrorKind::kConflict, "container " + container_ + " is not running");
  return vm_;
}

std::shared_ptr<Vm> Run::release() {
  const std::lock_guard lock(mutex_);
  return std::exchange(vm_, nullptr);
}

void Run::serve(std::unique_ptr<GuestSocket> socket) {
  const std::lock_guard lock(mutex_);
  socket_ = std::move(socket);
}

void Run::endService() {
  std::unique_ptr<GuestSocket> ended;
  const std::lock_guard lock(mutex_);
  ended.swap(socket_);
}

void Run::noteExit(const guest::ProcessExited& exit) {
  const std::lock_guard lock(mutex_);
  if (!end_.process) end_.process = exit;
  changed_.notify_all();
}

void Run::noteVmExit(const VmExit& exit) {
  const std::lock_guard lock(mutex_);
  if (!end_.vm) end_.vm = exit;
  changed_.notify_all();
}

Run::End Run::waitEnd() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return end_.process || end_.vm || end_.abandoned; });
  return end_;
}

bool Run::waitOverFor(std::chrono::nanoseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time,
                           [this] { return end_.process || end_.vm || end_.abandoned; });
}

bool Run::ended() const {
  const std::lock_guard lock(mutex_);
  return end_.process || end_.vm;
}

void Run::abandon() {
  const std::lock_guard lock(mutex_);
  end_.abandoned = true;
  changed_.notify_all();
}

// --- ExitWait ---

std::optional<ExitResult> ExitWait::get() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return result_ || cancelled_; });
  return result_;
}

std::optional<ExitResult> ExitWait::getFor(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [this] { return result_ || cancelled_; });
  return result_;
}

void ExitWait::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

void ExitWait::resolve(const ExitResult& result) {
  const std::lock_guard lock(mutex_);
  if (!result_) result_ = result;
  changed_.notify_all();
}

// --- Container ---

Container::Container(ContainerRecord record, ContainerState state, std::string folder)
    : id_(record.id),
      folder_(std::move(folder)),
      created_ns_(record.created_ns),
      image_(record.image),
      image_id_(record.image_id),
      record_(std::move(record)),
      state_(std::move(state)) {
  setDocuments(record_.documents);
}

void Container::setDocuments(const ContainerDocuments& documents) {
  auto spec = std::make_unique<const ContainerSpec>(specOf(documents));
  const std::lock_guard lock(mutex_);
  record_.documents = documents;
  spec_ = spec.get();
  specs_.push_back(std::move(spec));
}

std::string Container::name() const {
  const std::lock_guard lock(mutex_);
  return record_.name;
}

ContainerRecord Container::record() const {
  const std::lock_guard lock(mutex_);
  return record_;
}

std::vector<MountPoint> Container::mounts() const {
  const std::lock_guard lock(mutex_);
  return record_.mounts;
}

void Container::setMounts(std::vector<MountPoint> mounts) {
  const std::lock_guard lock(mutex_);
  record_.mounts = std::move(mounts);
}

ContainerState Container::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void Container::setHostname(const std::string& name) {
  const std::lock_guard lock(mutex_);
  joined_hostname_ = name;
}

std::string Container::hostname() const {
  {
    const std::lock_guard lock(mutex_);
    if (!joined_hostname_.empty()) return joined_hostname_;
  }
  return spec().hostname.empty() ? shortId(id_) : spec().hostname;
}

std::shared_ptr<ProcessOutput> Container::output() {
  const std::lock_guard lock(mutex_);
  if (removed_) throw Error(ErrorKind::kNotFound, "No such container: " + id_);
  if (!output_) {
    const LogSpec& log = spec().log;
    const LogLimits limits{log.max_bytes, log.max_files, log.driver == LogDriver::kNone};
    output_ = std::make_shared<ProcessOutput>(
        ProcessOutput::Options{logPath(), spec().tty, state_.running(), limits});
  }
  return output_;
}

std::shared_ptr<ProcessOutput> Container::liveOutput() const {
  const std::lock_guard lock(mutex_);
  return run_ ? output_ : nullptr;
}

std::shared_ptr<Run> Container::run() const {
  const std::lock_guard lock(mutex_);
  return run_;
}

std::shared_ptr<Run> Container::awaitRun(const std::function<bool()>& cancelled) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return run_ || removed_ || cancelled(); });
  return cancelled() ? nullptr : run_;
}

void Container::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

std::shared_ptr<ExitWait> Container::wait(WaitCondition condition) {
  auto wait = std::make_shared<ExitWait>();
  const std::lock_guard lock(mutex_);
  const bool over = condition == WaitCondition::kRemoved
                        ? removed_
                        : condition == WaitCondition::kNotRunning && !state_.running() &&
                              state_.status != Status::kRestarting;
  if (over || removed_) {
    wait->resolve({state_.exit_code, ""});
  } else {
    waits_.emplace_back(condition, wait);
  }
  return wait;
}

void Container::setName(const std::string& name) {
  const std::lock_guard lock(mutex_);
  record_.name = name;
}

ContainerState Container::change(const std::function<void(ContainerState&)>& edit) {
  const std::lock_guard lock(mutex_);
  edit(state_);
  return state_;
}

void Container::beginRun(std::shared_ptr<Run> run) {
  const std::lock_guard lock(mutex_);
  run_ = std::move(run);
  changed_.notify_all();
}

void Container::endRun(const ExitResult& result) {
  std::shared_ptr<Run> run;  // destroyed after the lock is given back: their ends take time
  std::shared_ptr<ProcessOutput> output;
  const std::lock_guard lock(mutex_);
  run = std::exchange(run_, nullptr);
  output = std::exchange(output_, nullptr);
  for (auto it = waits_.begin(); it != waits_.end();) {
    if (it->first == WaitCondition::kRemoved) {
      ++it;
      continue;
    }
    it->second->resolve(result);
    it = waits_.erase(it);
  }
  changed_.notify_all();
}

void Container::dropOutput() {
  std::shared_ptr<ProcessOutput> dropped;
  {
    const std::lock_guard lock(mutex_);
    dropped = std::exchange(output_, nullptr);
  }
  if (dropped) dropped->stop();
}

void Container::holdRemoval(const std::weak_ptr<void>& hold) {
  const std::lock_guard lock(mutex_);
  removal_hold_ = hold;
}

bool Container::removalHeld() const {
  const std::lock_guard lock(mutex_);
  return !removal_hold_.expired();
}

void Container::markRemoved() {
  const std::lock_guard lock(mutex_);
  removed_ = true;
  for (const auto& [condition, wait] : waits_) wait->resolve({state_.exit_code, ""});
  waits_.clear();
  changed_.notify_all();
}

bool Container::removed() const {
  const std::lock_guard lock(mutex_);
  return removed_;
}

}  // namespace hull::engine
