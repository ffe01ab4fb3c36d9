// `docker exec`: further processes in running containers. Kept in memory while their container runs
// and for a while after their end, so that their exit code can be asked. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/engine/container.h"
#include "daemon/engine/events.h"
#include "daemon/engine/tasks.h"

namespace hull::engine {

inline constexpr size_t kMaxExecsKept =
    4096;  // finished ones beyond it are forgotten, oldest first

struct ExecSpec {
  std::vector<std::string> arguments;
  std::vector<std::string> env;
  std::string working_dir;
  std::string user;
  bool tty = false;
  bool privileged = false;
  bool attach_stdin = false, attach_stdout = false, attach_stderr = false;
  std::string detach_keys;
  uint16_t rows = 0, columns = 0;
};
// Body of POST /containers/{id}/exec. Throws kInvalidArgument.
ExecSpec parseExecSpec(std::string_view body);

class Exec {
 public:
  Exec(std::string id, std::shared_ptr<Container> container, ExecSpec spec)
      : id_(std::move(id)), container_(std::move(container)), spec_(std::move(spec)) {}

  struct State {
    bool started = false;
    bool running = false;
    std::optional<int> exit_code;
    uint32_t pid = 0;
  };
  const std::string& id() const { return id_; }
  const ExecSpec& spec() const { return spec_; }
  const std::shared_ptr<Container>& container() const { return container_; }
  State state() const;
  std::shared_ptr<ProcessOutput> output() const;
  std::shared_ptr<Run> run() const;
  // Blocks until the process has ended and said so; false once `cancelled` (then wake()).
  bool awaitExit(const std::function<bool()>& cancelled);
  bool awaitExitFor(std::chrono::nanoseconds time);  // false when it runs on
  void wake();

 private:
  friend class Execs;
  void noteExit(int exit_code);

  const std::string id_;
  const std::shared_ptr<Container> container_;
  const ExecSpec spec_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  State state_;
  std::shared_ptr<Run> run_;
  std::shared_ptr<ProcessOutput> output_;
};

class Execs {
 public:
  Execs(EventBus& events, TaskGroup& tasks) : events_(events), tasks_(tasks) {}

  std::shared_ptr<Exec> create(const std::shared_ptr<Container>& container, ExecSpec spec);
  std::shared_ptr<Exec> get(const std::string& id) const;  // throws kNotFound
  std::vector<std::string> idsOf(const std::string& container_id) const;

  // Starts it; `before` is called with its output before the process runs, to subscribe.
  void start(const std::shared_ptr<Exec>& exec,
             const std::function<void(ProcessOutput&)>& before = {});
  void resize(const Exec& exec, uint16_t rows, uint16_t columns);

  void kill(const Exec& exec);         // SIGKILL to its process
  void forget(const std::string& id);  // an ended one nobody will ask for

  // From the VM's thread. False when it is none of ours: an earlier engine process started it.
  bool noteExit(const guest::ProcessExited& exit);
  void containerEnded(const std::string& container_id);

 private:
  void finish(const std::shared_ptr<Exec>& exec);
  void forgetOldest();

  EventBus& events_;
  TaskGroup& tasks_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Exec>> execs_;
  std::vector<std::string> order_;
};

}  // namespace hull::engine
