#include "guest-init/container/usage.h"

#include <unistd.h>

#include "guest-init/system/files.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

constexpr uint64_t kNsPerUs = 1000;
constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr size_t kNetworkFields = 16;
constexpr size_t kCpuFields = 8;  // user … steal; guest time is in user already

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> found;
  splitInto(line, ' ', [&found](std::string_view word) {
    if (!word.empty()) found.push_back(word);
    return true;
  });
  return found;
}

uint64_t numberIn(const std::string& path) {
  std::string text = readSmallFile(path, kMaxUsageFileBytes);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return parseNumber(text).value_or(0);  // "max" is 0: no limit
}

uint64_t valueOf(const std::vector<Counter>& counters, std::string_view name) {
  for (const Counter& counter : counters) {
    if (counter.name == name) return counter.value;
  }
  return 0;
}

void readCpu(const std::string& cgroup, Usage& usage) {
  const auto counters = parseCounters(readSmallFile(cgroup + "/cpu.stat", kMaxUsageFileBytes));
  usage.cpu_ns = valueOf(counters, "usage_usec") * kNsPerUs;
  usage.cpu_user_ns = valueOf(counters, "user_usec") * kNsPerUs;
  usage.cpu_system_ns = valueOf(counters, "system_usec") * kNsPerUs;
  usage.cpu_periods = valueOf(counters, "nr_periods");
  usage.cpu_throttled_periods = valueOf(counters, "nr_throttled");
  usage.cpu_throttled_ns = valueOf(counters, "throttled_usec") * kNsPerUs;
  usage.cpus = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  const std::string stat = readSmallFile("/proc/stat", kMaxUsageFileBytes);
  const auto fields = words(std::string_view(stat).substr(0, stat.find('\n')));
  const uint64_t tick_ns = kNsPerSecond / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  for (size_t i = 1; i < fields.size() && i <= kCpuFields; ++i) {
    usage.system_cpu_ns += parseNumber(fields[i]).value_or(0) * tick_ns;
  }
}

void readMemory(const std::string& cgroup, Usage& usage) {
  usage.memory_bytes = numberIn(cgroup + "/memory.current");
  usage.memory_peak_bytes = numberIn(cgroup + "/memory.peak");
  usage.memory_limit_bytes = numberIn(cgroup + "/memory.max");
  usage.memory = parseCounters(readSmallFile(cgroup + "/memory.stat", kMaxUsageFileBytes));
  const auto total =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (usage.memory_limit_bytes == 0 || usage.memory_limit_bytes > total) {
    usage.memory_limit_bytes = total;
  }
}

}  // namespace

std::vector<Counter> parseCounters(std::string_view text) {
  std::vector<Counter> counters;
  splitInto(text, '\n', [&counters](std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos) return true;
    if (const auto value = parseNumber(line.substr(space + 1))) {
      counters.push_back({std::string(line.substr(0, space)), *value});
    }
    return true;
  });
  return counters;
}

std::vector<BlockUsage> parseBlockUsage(std::string_view text) {
  std::vector<BlockUsage> list;
  splitInto(text, '\n', [&list](std::string_view line) {
    const auto fields = words(line);
    if (fields.size() < 2) return true;
    BlockUsage usage{std::string(fields[0]), 0, 0, 0, 0};
    for (const std::string_view field : fields) {
      const size_t equals = field.find('=');
      if (equals == std::string_view::npos) continue;
      const std::string_view key = field.substr(0, equals);
      const uint64_t value = parseNumber(field.substr(equals + 1)).value_or(0);
      if (key == "rbytes") usage.read_bytes = value;
      if (key == "wbytes") usage.write_bytes = value;
      if (key == "rios") usage.reads = value;
      if (key == "wios") usage.writes = value;
    }
    list.push_back(std::move(usage));
    return true;
  });
  return list;
}

std::vector<NetworkUsage> parseNetworkUsage(std::string_view text) {
  std::vector<NetworkUsage> list;
  splitInto(text, '\n', [&list](std::string_view line) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return true;
    const auto name = words(line.substr(0, colon));
    const auto fields = words(line.substr(colon + 1));
    if (name.size() != 1 || name[0] == "lo" || fields.size() < kNetworkFields) return true;
    const auto at = [&fields](size_t i) { return parseNumber(fields[i]).value_or(0); };
    list.push_back(
        {std::string(name[0]), at(0), at(1), at(2), at(3), at(8), at(9), at(10), at(11)});
    return true;
  });
  return list;
}

Usage readUsage(const std::string& cgroup) {
  Usage usage;
  readCpu(cgroup, usage);
  readMemory(cgroup, usage);
  usage.pids = numberIn(cgroup + "/pids.current");
  usage.pids_limit = numberIn(cgroup + "/pids.max");
  usage.networks = parseNetworkUsage(readSmallFile("/proc/net/dev", kMaxUsageFileBytes));
  usage.disks = parseBlockUsage(readSmallFile(cgroup + "/io.stat", kMaxUsageFileBytes));
  return usage;
}

}  // namespace hull::guest
