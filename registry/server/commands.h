// The commands of hull-registry besides serving: gc, verify, user. Main thread.
#pragma once

namespace CLI {
class App;
}

namespace hull::registry {

// They run while the command line is parsed and leave the exit status in `status`.
void addMaintenanceCommands(CLI::App& app, int& status);

}  // namespace hull::registry
