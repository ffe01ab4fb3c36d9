// Parts of a container's specification that are read from one field of its documents each: health
// check, log driver. Pure values and functions; the text is a client's.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "daemon/vm/vm.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine {

// Config.Healthcheck with Docker's defaults filled in (docker/docker: daemon/health.go).
struct HealthSpec {
  std::vector<std::string> command;  // empty: no check
  std::chrono::nanoseconds interval = std::chrono::seconds(30);
  std::chrono::nanoseconds timeout = std::chrono::seconds(30);
  std::chrono::nanoseconds start_period{0};
  std::chrono::nanoseconds start_interval = std::chrono::seconds(5);  // within the start period
  int64_t retries = 3;
};

enum class LogDriver { kJsonFile, kLocal, kNone };

// HostConfig.LogConfig. Both drivers that keep logs write the json-file format; "local" is rotated
// by default, as in Docker.
struct LogSpec {
  LogDriver driver = LogDriver::kJsonFile;
  uint64_t max_bytes = 0;  // of one file; 0: no bound
  uint32_t max_files = 1;  // the current one and the rotated ones
};

inline constexpr int64_t kMaxLogFiles = 1000;

// What the container gets of the host and, inside the VM, of the guest. 0: no limit.
struct LimitSpec {
  uint64_t memory_low_bytes = 0;  // --memory-reservation
  uint64_t cpu_quota_us = 0;      // --cpus, --cpu-quota: of each period
  uint64_t cpu_period_us = 100'000;
  uint64_t cpu_shares = 0;           // --cpu-shares: the VM's weight among the host's processes
  std::vector<uint32_t> cpus;        // --cpuset-cpus: the host's CPUs the VM may run on; empty: all
  uint64_t writable_disk_bytes = 0;  // --storage-opt size=
  DiskLimits disks;                  // --device-read-bps and its like
};

// What the guest is to make of its own kernel.
struct GuestSpec {
  bool init = false;
  std::vector<std::string> sysctls;             // "name=value"
  std::vector<std::string> devices;             // of the guest's kernel
  std::vector<guest::DeviceRule> device_rules;  // empty with --privileged: all
  std::string seccomp_profile;                  // JSON; empty: no filter
  int32_t oom_score_adj = 0;
};

// "name=value", of a file below /proc/sys; throws kInvalidArgument.
void checkSysctl(const std::string& setting);
LimitSpec readLimits(const nlohmann::json& host);
GuestSpec readGuest(const nlohmann::json& host);
// Options that are accepted and do nothing, each with a sentence.
std::vector<std::string> optionWarnings(const nlohmann::json& host);

// "0-3,7" → sorted numbers. Throws naming `option`.
std::vector<uint32_t> parseCpuList(const std::string& text, const std::string& option);

// Both throw kInvalidArgument in Docker's words, kNotSupported for a driver that is not there.
HealthSpec readHealth(const nlohmann::json& config);
LogSpec readLog(const nlohmann::json& host);

// "10m" → bytes (units b, k, m, g of 1024; Docker's go-units). Throws naming `option`.
uint64_t parseByteSize(const std::string& text, const std::string& option);

}  // namespace hull::engine
