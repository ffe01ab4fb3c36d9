// What every command shares: the engine (found or started on first use), the exit code, and the
// registration of the command groups. One per process, main thread.
#pragma once

#include <CLI/App.hpp>
#include <memory>
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
  const EngineClient& engine();  // throws hull::Error with the next step when there is none
  std::string host;              // --host or HULL_HOST; empty: find one
  int exit_code = 0;

 private:
  std::unique_ptr<EngineClient> engine_;
};

// One per file of commands/.
void addRunCommands(CLI::App& app, Context& context);        // run create start exec attach
void addContainerCommands(CLI::App& app, Context& context);  // ps logs stop kill rm wait …
void addImageCommands(CLI::App& app, Context& context);      // images rmi tag inspect history …
void addTransferCommands(CLI::App& app,
                         Context& context);  // pull push load save import login logout
void addBuildCommand(CLI::App& app, Context& context);
void addSystemCommands(CLI::App& app, Context& context);  // version info events
void addDoctorCommand(CLI::App& app, Context& context);
void addMachineCommands(CLI::App& app, Context& context);

// A subcommand whose options stop at the first positional (docker run IMAGE COMMAND --its-flags):
// what follows is in `words`. Unknown options before it are an error.
CLI::App* addPrefixCommand(CLI::App& app, const std::string& name, const std::string& description,
                           size_t least_words, std::vector<std::string>& words);

// An option given once per value (-e A=1 -e B=2), never swallowing what follows it.
CLI::Option* addList(CLI::App* command, const std::string& names, std::vector<std::string>& values,
                     const std::string& description);

}  // namespace hull::cli
