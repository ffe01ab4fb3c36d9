// hull build --secret: reads the secrets here and hands them to the engine, which keeps them in
// memory for the one build that follows. Main thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/client/engine_client.h"
#include "cli/commands/build_options.h"

namespace hull::cli {

class SecretForwarding {
 public:
  // `wanted`: "id=x,src=path", "id=x,env=NAME", or a lone id that names a variable or a file.
  // Throws Exit for what cannot be read.
  explicit SecretForwarding(const std::vector<std::string>& wanted);
  // Sends them. Returns how the build finds them; it takes them away, so another needs them again.
  Query send(const EngineClient& engine) const;

 private:
  std::map<std::string, std::string> values_;  // by id
};

}  // namespace hull::cli
