// Child processes. Arguments are a vector, never a shell line; the child gets exactly the
// descriptors, environment and arguments named here. Any thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace hull {

struct SubprocessOptions {
  std::vector<std::string> arguments;  // [0] is looked up in PATH unless it has a '/'
  std::optional<std::vector<std::string>> environment;  // "K=V"; nullopt inherits
  std::string working_directory;                        // empty: inherit
  // Descriptor in the parent → number in the child. Numbers 0–2 not named here are /dev/null
  // (or inherited with inherit_stdio).
  std::vector<std::pair<int, int>> descriptors;
  bool inherit_stdio = false;
  bool new_session = false;  // setsid: survives the parent's terminal and signals
  // pid_namespaces(7): the child is PID 1 of one and sees no other process. Needs CAP_SYS_ADMIN.
  bool new_pid_namespace = false;
};

class Subprocess {
 public:
  explicit Subprocess(
      const SubprocessOptions& options);  // throws with the program's name when exec fails
  Subprocess(Subprocess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
  Subprocess& operator=(Subprocess&&) = delete;
  ~Subprocess();  // kills and reaps a child that was neither waited for nor detached

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  int wait();  // exit status 0–255, or 128 + signal
  void kill(int signal_number);
  void detach() { pid_ = -1; }  // somebody else reaps it

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

struct CommandResult {
  int status = 0;  // as Subprocess::wait
  std::string output;
  std::string errors;
};

// Runs to the end and collects at most kMaxCommandOutputBytes of each stream (the rest is dropped).
inline constexpr size_t kMaxCommandOutputBytes = 16 << 20;
CommandResult runCommand(const std::vector<std::string>& arguments, std::string_view input = {});

// As runCommand, but a status other than 0 is an Error with the command and what it wrote.
std::string checkCommand(const std::vector<std::string>& arguments, std::string_view input = {});

}  // namespace hull
