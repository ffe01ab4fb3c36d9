// The ssh agents of one RUN step (--mount=type=ssh): sockets in the guest whose connections are
// answered by the client's agents. What a guest sends is hostile: only listing and signing reach an
// agent (base/ssh_agent.h), and a stream that is none ends. Made and destroyed by the step's
// thread; a thread for each socket and each connection.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "daemon/vm/guest_socket.h"
#include "image/build/step_runner.h"

namespace hull::engine {

inline constexpr size_t kMaxAgentConnections =
    32;  // to a socket of a step; more are closed at once

class StepAgents {
 public:
  StepAgents() = default;
  ~StepAgents();  // closes the connections; a request under way is abandoned
  StepAgents(const StepAgents&) = delete;
  StepAgents& operator=(const StepAgents&) = delete;

  // `open` gives streams for the agent's socket in the guest, which is there afterwards.
  void serve(GuestSocket::Open open, std::shared_ptr<build::SshAgent> agent);

 private:
  struct Connection {
    Fd guest;
    std::shared_ptr<build::SshAgent> agent;
    std::thread thread;
    std::atomic<bool> ended = false;
  };
  void begin(Fd guest, std::shared_ptr<void> place, std::shared_ptr<build::SshAgent> agent);
  void answerAll(int guest, build::SshAgent& agent) const;

  std::atomic<bool> over_ = false;
  std::mutex mutex_;
  std::list<Connection> connections_;  // under mutex_
  std::vector<std::unique_ptr<GuestSocket>> sockets_;
};

}  // namespace hull::engine
