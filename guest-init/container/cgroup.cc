#include "guest-init/container/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "base/error.h"
#include "guest-init/system/files.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

constexpr size_t kMaxEventsBytes = 4096;

// A container may have made cgroups of its own below; only leaves can be removed.
void removeCgroups(const std::string& path) {
  if (const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(path.c_str()), closedir); listing) {
    while (const dirent* entry = readdir(listing.get())) {
      const std::string name = entry->d_name;
      if (entry->d_type == DT_DIR && name != "." && name != "..") removeCgroups(path + '/' + name);
    }
  }
  rmdir(path.c_str());
}

}  // namespace

Cgroup::Cgroup(std::string path, uint64_t pids_limit, uint64_t memory_bytes)
    : path_(std::move(path)) {
  makeDirectory(path_);
  directory_ = openFile(path_, O_RDONLY | O_DIRECTORY);
  try {
    if (pids_limit != 0) limit("pids.max", std::to_string(pids_limit));
    if (memory_bytes != 0) limit("memory.max", std::to_string(memory_bytes));
  } catch (...) {
    removeCgroups(path_);
    throw;
  }
}

Cgroup::~Cgroup() {
  killAll();
  removeCgroups(path_);
}

void Cgroup::setLimits(const SetLimits& limits) {
  const auto orMax = [](uint64_t value) { return value == 0 ? "max" : std::to_string(value); };
  limit("pids.max", orMax(limits.pids));
  limit("memory.max", orMax(limits.memory_bytes));
  limit("memory.low", std::to_string(limits.memory_low_bytes));
  limit("cpu.max", orMax(limits.cpu_quota_us) + ' ' + std::to_string(limits.cpu_period_us));
}

void Cgroup::limit(const char* file, const std::string& value) {
  if (!writeControl(path_ + '/' + file, value)) {
    throw sysError(std::string("set ") + file + " of the container's cgroup");
  }
}

void Cgroup::killAll() {
  writeControl(path_ + "/cgroup.kill", "1");
}

void Cgroup::freeze(bool on) {
  if (!writeControl(path_ + "/cgroup.freeze", on ? "1" : "0")) {
    throw sysError(on ? "freeze the container's cgroup" : "thaw the container's cgroup");
  }
}

uint64_t Cgroup::oomKills() const {
  const std::string events = readSmallFile(path_ + "/memory.events", kMaxEventsBytes);
  uint64_t kills = 0;
  splitInto(events, '\n', [&kills](std::string_view line) {
    constexpr std::string_view kKey = "oom_kill ";
    if (!line.starts_with(kKey)) return true;
    kills = parseNumber(line.substr(kKey.size())).value_or(0);
    return false;
  });
  return kills;
}

}  // namespace hull::guest
