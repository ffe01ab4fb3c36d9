// What every command shares: the engine (found or started on first use), the exit code, and the
// registration of the command groups. One per process, main thread.
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/client/engine_client.h"

namespace hull::cli {

// Ends the program with this status and, unless empty, one "hull: …" line. 125 is Docker's status
// for "the command itself failed before the container ran".
struct Exit {
  int status = 1;
  std::string message;
};

class Context {
 public:
  const EngineClient& engine();         // throws hull::Error with the next step when there is none
  const EngineClient* runningEngine();  // null when none is there; starts none
  std::string host;                     // --host or HULL_HOST; empty: the context's
  std::string context;                  // --context or HULL_CONTEXT; empty: the current one
  int exit_code = 0;

 private:
  Endpoint endpoint() const;  // an empty URL: one of this machine
  std::unique_ptr<EngineClient> engine_;
};

// One per file of commands/.
void addRunCommands(CLI::App& app, Context& context);        // run create start exec attach
void addContainerCommands(CLI::App& app, Context& context);  // ps logs stop kill rm wait …
void addImageCommands(CLI::App& app, Context& context);      // images rmi tag inspect history …
void addTransferCommands(CLI::App& app,
                         Context& context);  // pull push load save import login logout
void addBuildCommand(CLI::App& app, Context& context);
void addSystemCommands(CLI::App& app, Context& context);   // version info events system
void addDiskCommands(CLI::App& system, Context& context);  // system df, prune
void addDialStdio(CLI::App& system, Context& context);
void addEndpointCommands(CLI::App& app, Context& context);  // context completion
void addStatsCommand(CLI::App& app, Context& context);
void addChangeCommands(CLI::App& app, Context& context);  // diff commit update
void addDoctorCommand(CLI::App& app, Context& context);
void addMachineCommands(CLI::App& app, Context& context);
void addNetworkCommands(CLI::App& app, Context& context);  // network ls create connect …
void addVolumeCommands(CLI::App& app, Context& context);   // volume ls create inspect rm prune

// A subcommand whose options stop at the first positional (docker run IMAGE COMMAND --its-flags):
// what follows is in `words`. Unknown options before it are an error.
CLI::App* addPrefixCommand(CLI::App& app, const std::string& name, const std::string& description,
                           size_t least_words, std::vector<std::string>& words);

// Applies `work` to each name; failures are printed and make the exit status 1.
void forEachName(Context& context, const std::vector<std::string>& names,
                 const std::function<void(const std::string&)>& work);

// Asks on the terminal unless `force`; false: the user does not want it.
bool confirmed(const std::string& warning, bool force);

nlohmann::json restartPolicy(const std::string& text);  // "on-failure:3"; throws Exit

// An option given once per value (-e A=1 -e B=2), never swallowing what follows it.
CLI::Option* addList(CLI::App* command, const std::string& names, std::vector<std::string>& values,
                     const std::string& description);

}  // namespace hull::cli
