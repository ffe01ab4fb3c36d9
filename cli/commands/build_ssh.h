// hull build --ssh: lends ssh agents to a build. Each is a connection to the engine, on which it
// asks what a step asks; only listing and signing reach the agent. Key files are held by an
// ssh-agent of the build's own. A thread per agent; made and destroyed by the main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/client/engine_client.h"
#include "cli/commands/build_options.h"

namespace hull::cli {

class SshForwarding {
 public:
  // `wanted`: "ID", "ID=SOCKET" or "ID=KEYFILE,KEYFILE…". Throws Exit for what cannot be lent.
  SshForwarding(const EngineClient& engine, const std::vector<std::string>& wanted);
  ~SshForwarding();  // the build's steps get refusals from now on
  SshForwarding(const SshForwarding&) = delete;
  SshForwarding& operator=(const SshForwarding&) = delete;

  Query query() const;  // how the build finds them

 private:
  class Lent;
  const std::string session_;
  std::vector<std::unique_ptr<Lent>> lent_;
};

}  // namespace hull::cli
