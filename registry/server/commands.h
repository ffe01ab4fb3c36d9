// The commands of hull-registry besides serving: gc, verify, user. Main thread.
#pragma once

#include <exception>

namespace CLI {
class App;
}

namespace hull::registry {

// Of a command that ended with this: 2 when it was told something wrong.
int exitStatus(const std::exception& error);

// They run while the command line is parsed and leave the exit status in `status`.
void addMaintenanceCommands(CLI::App& app, int& status);

}  // namespace hull::registry
