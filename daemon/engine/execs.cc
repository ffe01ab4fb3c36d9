#include "daemon/engine/execs.h"

#include <signal.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/names.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::chrono::seconds kOutputDrainTime{10};

guest::StartProcess startMessage(const Exec& exec) {
  const ContainerSpec& container = exec.container()->spec();
  const ExecSpec& spec = exec.spec();
  guest::StartProcess message;
  message.process = exec.id();
  message.arguments = spec.arguments;
  auto env =
      processEnvironment(container.env, spec.tty || container.tty, exec.container()->hostname());
  message.environment = mergeEnvironment(spec.env, env);
  message.working_directory = !spec.working_dir.empty()       ? spec.working_dir
                              : container.working_dir.empty() ? "/"
                                                              : container.working_dir;
  message.user = spec.user.empty() ? container.user : spec.user;
  message.additional_groups = container.group_add;
  message.capabilities =
      spec.privileged ? capabilitySet({"ALL"}, {}, true) : container.capabilities;
  message.no_new_privileges = container.no_new_privileges;
  message.rlimits = container.rlimits;
  if (!spec.privileged) message.seccomp = seccompOf(container);
  message.oom_score_adj = container.guest.oom_score_adj;
  message.terminal = spec.tty;
  message.rows = spec.rows;
  message.columns = spec.columns;
  message.open_stdin = spec.attach_stdin;
  return message;
}

}  // namespace

ExecSpec parseExecSpec(std::string_view body) {
  const Json object = fields::parseObject(body, "the exec configuration");
  ExecSpec spec;
  spec.arguments = fields::texts(object, "Cmd");
  if (spec.arguments.empty()) throw Error(ErrorKind::kInvalidArgument, "No exec command specified");
  spec.env = fields::texts(object, "Env");
  spec.working_dir = fields::text(object, "WorkingDir");
  if (!spec.working_dir.empty() && !spec.working_dir.starts_with('/')) {
    throw Error(ErrorKind::kInvalidArgument, "the working directory '" + spec.working_dir +
                                                 "' is invalid, it needs to be an absolute path");
  }
  spec.user = fields::text(object, "User");
  spec.tty = fields::boolean(object, "Tty");
  spec.privileged = fields::boolean(object, "Privileged");
  spec.attach_stdin = fields::boolean(object, "AttachStdin");
  spec.attach_stdout = fields::boolean(object, "AttachStdout");
  spec.attach_stderr = fields::boolean(object, "AttachStderr");
  spec.detach_keys = fields::text(object, "DetachKeys");
  if (const Json* size = fields::find(object, "ConsoleSize");
      size && size->is_array() && size->size() == 2 && (*size)[0].is_number_unsigned() &&
      (*size)[1].is_number_unsigned()) {
    spec.rows = static_cast<uint16_t>((*size)[0].get<unsigned>());
    spec.columns = static_cast<uint16_t>((*size)[1].get<unsigned>());
  }
  return spec;
}

// --- Exec ---

Exec::State Exec::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::shared_ptr<ProcessOutput> Exec::output() const {
  const std::lock_guard lock(mutex_);
  return output_;
}

std::shared_ptr<Run> Exec::run() const {
  const std::lock_guard lock(mutex_);
  return run_;
}

bool Exec::awaitExit(const std::function<bool()>& cancelled) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return state_.exit_code || cancelled(); });
  return state_.exit_code.has_value();
}

bool Exec::awaitExitFor(std::chrono::nanoseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return state_.exit_code.has_value(); });
}

void Exec::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void Exec::noteExit(int exit_code) {
  const std::lock_guard lock(mutex_);
  if (state_.exit_code) return;
  state_.exit_code = exit_code;
  state_.running = false;
  changed_.notify_all();
}

// --- Execs ---

std::shared_ptr<Exec> Execs::create(const std::shared_ptr<Container>& container, ExecSpec spec) {
  checkStep(Step::kExec, container->state().status, container->id());
  auto exec = std::make_shared<Exec>(newId(), container, std::move(spec));
  const std::lock_guard lock(mutex_);
  execs_.emplace(exec->id(), exec);
  order_.push_back(exec->id());
  forgetOldest();
  return exec;
}

void Execs::forgetOldest() {
  for (auto it = order_.begin(); it != order_.end() && order_.size() > kMaxExecsKept;) {
    if (execs_.at(*it)->state().running) {
      ++it;
    } else {
      execs_.erase(*it);
      it = order_.erase(it);
    }
  }
}

std::shared_ptr<Exec> Execs::get(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = execs_.find(id);
  if (found == execs_.end()) {
    throw Error(ErrorKind::kNotFound, "No such exec instance: " + id);
  }
  return found->second;
}

std::vector<std::string> Execs::idsOf(const std::string& container_id) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, exec] : execs_) {
    if (exec->container()->id() == container_id && exec->state().running) ids.push_back(id);
  }
  return ids;
}

void Execs::start(const std::shared_ptr<Exec>& exec,
                  const std::function<void(ProcessOutput&)>& before) {
  const auto run = exec->container()->run();
  checkStep(Step::kExec, exec->container()->state().status, exec->container()->id());
  if (!run) {
    throw Error(ErrorKind::kConflict, "container " + exec->container()->id() + " is not running");
  }
  const auto output =
      std::make_shared<ProcessOutput>(ProcessOutput::Options{"", exec->spec().tty, false});
  {
    const std::lock_guard lock(exec->mutex_);
    if (exec->state_.started) {
      throw Error(ErrorKind::kConflict, "exec " + exec->id() + " has already run");
    }
    exec->state_.started = true;
    exec->state_.running = true;
    exec->run_ = run;
    exec->output_ = output;
  }
  if (before) before(*output);
  try {
    const auto started =
        run->vm()->requestFor<guest::ProcessStarted>(exec->container()->id(), startMessage(*exec));
    {
      const std::lock_guard lock(exec->mutex_);
      exec->state_.pid = started.pid;
    }
    output->begin([&](OutputKind kind, uint64_t offset) {
      guest::OpenStream open;
      open.process = exec->id();
      open.kind = kind == OutputKind::kStdout ? guest::OpenStream::Kind::kStdout
                                              : guest::OpenStream::Kind::kStderr;
      open.offset = offset;
      return run->openStream(open);
    });
  } catch (const Error& error) {
    output->stop();
    const StartFailure failure = startFailure(error, exec->spec().arguments.at(0));
    exec->noteExit(failure.exit_code);
    throw Error(ErrorKind::kInvalidArgument,
                "OCI runtime exec failed: exec failed: " + failure.message);
  }
  tasks_.run("exec " + exec->id(), [this, exec] { finish(exec); });
}

void Execs::finish(const std::shared_ptr<Exec>& exec) {
  // containerEnded() gives every exec an end, so this always returns.
  exec->awaitExit([] { return false; });
  exec->output()->waitEnded(kOutputDrainTime);
  exec->output()->stop();
  std::shared_ptr<Run> run;
  {
    const std::lock_guard lock(exec->mutex_);
    run = std::exchange(exec->run_, nullptr);
  }
  if (!run || run->ended()) return;
  try {
    run->request(guest::ForgetProcess{exec->id()});
  } catch (const Error& error) {
    log::debug("forget process " + exec->id() + ": " + error.what());
  }
}

void Execs::resize(const Exec& exec, uint16_t rows, uint16_t columns) {
  const auto run = exec.run();
  if (!run) throw Error(ErrorKind::kConflict, "exec " + exec.id() + " is not running");
  run->request(guest::ResizeTerminal{exec.id(), rows, columns});
}

void Execs::kill(const Exec& exec) {
  const auto run = exec.run();
  if (!run) return;
  try {
    run->request(guest::SignalProcess{exec.id(), SIGKILL, false});
  } catch (const Error& error) {
    log::debug("kill exec " + exec.id() + ": " + error.what());  // it has ended just now
  }
}

void Execs::forget(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = execs_.find(id);
  if (found == execs_.end() || found->second->state().running) return;
  execs_.erase(found);
  order_.erase(std::find(order_.begin(), order_.end(), id));
}

bool Execs::noteExit(const guest::ProcessExited& exit) {
  std::shared_ptr<Exec> exec;
  {
    const std::lock_guard lock(mutex_);
    const auto found = execs_.find(exit.process);
    if (found == execs_.end()) return false;
    exec = found->second;
  }
  exec->noteExit(exit.exit_code);
  events_.publish({"container",
                   "exec_die",
                   exec->container()->id(),
                   {{"execID", exec->id()},
                    {"exitCode", std::to_string(exit.exit_code)},
                    {"image", exec->container()->record().image},
                    {"name", exec->container()->name()}},
                   0});
  return true;
}

void Execs::containerEnded(const std::string& container_id) {
  std::vector<std::shared_ptr<Exec>> ended;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, exec] : execs_) {
      if (exec->container()->id() == container_id) ended.push_back(exec);
    }
  }
  for (const auto& exec : ended) {
    if (exec->state().running) exec->noteExit(137);
    exec->wake();
  }
}

}  // namespace hull::engine
