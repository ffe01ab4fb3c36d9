// The agent: the one process in the emulated machine that talks to the host's supervisor. Serves
// the streams named in mux.h, and listens on /run/hull/ports.sock for the engine that wants ports
// published on the host. Its end is the machine's end. One thread.
#pragma once

#include <string>

namespace hull::machine {

inline constexpr const char* kChannelName = "hull.channel";  // the virtio-serial port
inline constexpr const char* kEngineSocketInside = "/run/hull/hulld.sock";
inline constexpr const char* kPortsSocketInside = "/run/hull/ports.sock";

// `channel`: a device or an empty string, which looks for kChannelName under /sys. Returns the exit
// status when the host asks for power-off or goes away.
int runAgent(const std::string& channel);

}  // namespace hull::machine
