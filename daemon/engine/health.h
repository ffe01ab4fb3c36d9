// Health checks: what a probe's outcome makes of a container's health (Docker's rules,
// daemon/health.go of moby). Pure functions; the probes themselves are run by Containers
// (health.cc), one task per container that has a check and runs.
#pragma once

#include <chrono>
#include <cstdint>

#include "daemon/engine/container_state.h"
#include "daemon/engine/spec_options.h"

namespace hull::engine {

inline constexpr size_t kMaxHealthProbes = 5;          // kept for inspect
inline constexpr size_t kMaxHealthOutputBytes = 4096;  // of each
inline constexpr int kProbeTimedOut = -1;              // exit code of a probe that took too long

// `probe` has just ended in a container that was started at `started_ns`.
HealthState afterProbe(HealthState health, HealthProbe probe, const HealthSpec& spec,
                       int64_t started_ns);

// How long to wait before the next probe.
std::chrono::nanoseconds probeDelay(const HealthState& health, const HealthSpec& spec,
                                    int64_t started_ns, int64_t now_ns);

}  // namespace hull::engine
