// The ssh agents that clients lend to their builds (hull build --ssh): a connection each, taken
// over from POST /build/agents, which a build finds by its session and id. On it the engine asks
// and the client answers, as in the agent protocol (base/ssh_agent.h); first the engine sends one
// empty message: now a build finds it. One object for the API; any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/api/build_session.h"
#include "daemon/api/http.h"
#include "image/build/step_runner.h"

namespace hull::engine::api {

inline constexpr size_t kMaxBuildAgents = 16;  // of one build

class BuildAgents {
 public:
  // POST /build/agents?session=HEX&id=ID: until the client closes the connection.
  void serve(Exchange& exchange);
  // Those of `session`, by id. Throws kInvalidArgument for an id that is not there.
  std::map<std::string, std::shared_ptr<build::SshAgent>> find(const std::string& session,
                                                               const std::vector<std::string>& ids);

 private:
  class Agent;
  std::mutex mutex_;
  std::map<BuildSessionKey, std::shared_ptr<Agent>> agents_;
};

}  // namespace hull::engine::api
