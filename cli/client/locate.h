// Finds the engine a command should talk to, and starts one when there is none and it can.
#pragma once

#include <string>

namespace hull::cli {

// The path of an engine's unix socket. `host` ("unix:///path", "/path" or empty) comes first, then
// running engines in their usual places (the system's, where this user may use it, then the user's
// own); then one is started, saying so on standard error: hulld on a host with hardware
// virtualization, without root for an ordinary user; `hull machine` elsewhere. Throws hull::Error
// with the next step.
std::string locateEngine(const std::string& host);

// As locateEngine without starting anything: empty when there is none.
std::string findRunningEngine(const std::string& host);

std::string programDirectory();  // of this executable; its siblings are hulld, hull-vmm, …

}  // namespace hull::cli
