// How this program runs `hull machine`: its own hidden subcommands are supervisor and agent.
#pragma once

#include "machine/machine.h"

namespace hull::cli {

machine::MachineOptions machineOptions();

// Progress lines on standard error.
void showMachineProgress(const std::string& line);

}  // namespace hull::cli
