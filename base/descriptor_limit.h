// How many descriptors this process may hold (RLIMIT_NOFILE, getrlimit(2)). Programs that relay for
// many others take what they can get: the usual soft limit of 1024 is for programs that use
// select(2). Any thread; at the start of a program.
#pragma once

#include <cstdint>

namespace hull {

inline constexpr uint64_t kWantedDescriptors = uint64_t{1} << 20;

// Raises the limit to kWantedDescriptors, or as far as this process may. Returns what it is now.
uint64_t raiseDescriptorLimit() noexcept;

}  // namespace hull
