// The ssh agents of one RUN step (--mount=type=ssh): the guest's requests, one stream each,
// answered by the client's agent. What a guest sends is hostile: only listing and signing reach the
// agent (base/ssh_agent.h), and a stream that is none ends. Made and destroyed by the step's
// thread, has a thread for each agent.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "image/build/step_runner.h"

namespace hull::engine {

class StepAgents {
 public:
  StepAgents() = default;
  ~StepAgents();  // closes the streams; a request under way is abandoned
  StepAgents(const StepAgents&) = delete;
  StepAgents& operator=(const StepAgents&) = delete;

  // `guest` is a stream of OpenStream::Kind::kAgent.
  void serve(Fd guest, std::shared_ptr<build::SshAgent> agent);

 private:
  struct Served {
    Fd guest;
    std::shared_ptr<build::SshAgent> agent;
    std::thread thread;
  };
  void answerAll(int guest, build::SshAgent& agent) const;

  std::atomic<bool> over_ = false;
  std::vector<std::unique_ptr<Served>> served_;
};

}  // namespace hull::engine
