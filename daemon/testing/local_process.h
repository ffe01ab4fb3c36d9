// One process of a LocalHost machine: its output is kept so that streams can be opened at any
// offset, its input comes from streams; see local_machine.h. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/subprocess.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine::testing {

class LocalProcess : public std::enable_shared_from_this<LocalProcess> {
 public:
  // Throws as the guest would: kNotFound and kForbidden for programs.
  LocalProcess(const guest::StartProcess& start, const std::string& root);

  void begin(std::function<void(int exit_code)> exited);
  void signal(int number, bool whole_group);
  void resize(uint16_t rows, uint16_t columns);
  Fd openOutput(bool standard_error, uint64_t offset);
  Fd openInput();
  pid_t pid() const { return pid_; }
  std::optional<int> exitCode() const;

 private:
  struct Output {
    std::string bytes;
    bool ended = false;
  };
  void read(Fd from, Output& output);
  void send(Fd to, Output& output, uint64_t offset);
  void feed(Fd from);
  void wait();

  bool terminal_ = false;
  pid_t pid_ = -1;
  std::optional<Subprocess> process_;
  Fd terminal_fd_;
  Fd stdin_, stdout_, stderr_;
  std::function<void(int)> exited_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Output out_, err_;
  std::optional<int> exit_code_;
};

}  // namespace hull::engine::testing
