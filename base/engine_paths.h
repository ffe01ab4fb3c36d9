// Where an engine keeps what it has and where it listens, by who runs it: one answer for the engine
// and for its clients. From the environment; any thread.
#pragma once

#include <string>

namespace hull {

inline constexpr const char* kSystemEngineSocket = "/run/hull/hulld.sock";

// /var/lib/hull for root; $XDG_DATA_HOME/hull or ~/.local/share/hull for others. Throws when there
// is neither.
std::string engineRoot();

// /run/hull/hulld.sock for root; $XDG_RUNTIME_DIR/hull/hulld.sock for others, or in the engine's
// root when there is no such folder: never where other users could be first.
std::string engineSocket();

}  // namespace hull
