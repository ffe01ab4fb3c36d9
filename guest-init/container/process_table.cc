#include "guest-init/container/process_table.h"

#include <dirent.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "guest-init/system/files.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

constexpr size_t kMaxProcFileBytes = 1 << 20;
constexpr size_t kMaxCommandBytes = 4096;
constexpr int64_t kSecondsPerDay = 86400;

void collectPids(const std::string& cgroup, std::vector<pid_t>& pids) {
  const std::string text = readSmallFile(cgroup + "/cgroup.procs", kMaxProcFileBytes);
  splitInto(text, '\n', [&pids](std::string_view line) {
    if (const auto pid = parseNumber<pid_t>(line); pid && *pid > 0) pids.push_back(*pid);
    return pids.size() < kMaxListedProcesses;
  });
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(cgroup.c_str()), closedir);
  if (!listing) return;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != "..") {
      collectPids(cgroup + '/' + name, pids);
    }
  }
}

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string commandOf(const std::string& folder, const std::string& name) {
  std::string command = readSmallFile(folder + "/cmdline", kMaxProcFileBytes);
  while (!command.empty() && command.back() == '\0') command.pop_back();
  if (command.empty()) return '[' + name + ']';
  std::replace(command.begin(), command.end(), '\0', ' ');
  return command.substr(0, kMaxCommandBytes);
}

std::string terminalName(int device) {
  constexpr int kFirstPtyMajor = 136;
  const int device_major = device >> 8 & 0xfff;
  const int device_minor = (device & 0xff) | (device >> 12 & 0xfff00);
  if (device == 0) return "?";
  if (device_major < kFirstPtyMajor || device_major > kFirstPtyMajor + 7) return "tty";
  return "pts/" + std::to_string((device_major - kFirstPtyMajor) * 256 + device_minor);
}

// ps -f: the time of day for today's processes, in UTC, since the guest knows no zone.
std::string startTime(double seconds_ago) {
  const auto now = static_cast<int64_t>(time(nullptr));
  const int64_t start = now - static_cast<int64_t>(seconds_ago);
  if (start / kSecondsPerDay != now / kSecondsPerDay) {
    return format("%dd", static_cast<int>(now / kSecondsPerDay - start / kSecondsPerDay));
  }
  const auto of_day = static_cast<int>(start % kSecondsPerDay);
  return format("%02d:%02d", of_day / 3600, of_day / 60 % 60);
}

std::vector<std::string> makeRow(pid_t pid, double uptime) {
  const std::string folder = "/proc/" + std::to_string(pid);
  ProcessStat stat;
  struct stat owner;
  if (!parseProcessStat(readSmallFile(folder + "/stat", kMaxProcFileBytes), stat) ||
      ::stat(folder.c_str(), &owner) < 0) {
    return {};
  }
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double age = std::max(0.0, uptime - static_cast<double>(stat.start_ticks) / ticks);
  const double used = static_cast<double>(stat.cpu_ticks) / ticks;
  const auto seconds = static_cast<int>(used);
  const int percent = age > 0 ? static_cast<int>(100 * used / age) : 0;
  return {owner.st_uid == 0 ? "root" : std::to_string(owner.st_uid),
          std::to_string(pid),
          std::to_string(stat.parent),
          std::to_string(std::min(percent, 99)),
          startTime(age),
          terminalName(stat.terminal),
          format("%02d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60),
          commandOf(folder, stat.name)};
}

}  // namespace

std::vector<pid_t> pidsOfCgroup(const std::string& cgroup) {
  std::vector<pid_t> pids;
  collectPids(cgroup, pids);
  std::sort(pids.begin(), pids.end());
  return pids;
}

bool parseProcessStat(std::string_view text, ProcessStat& stat) {
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return false;
  }
  stat.name = text.substr(open + 1, close - open - 1);
  const auto fields = split(text.substr(std::min(close + 2, text.size())), ' ');
  // Field 3 of proc(5) is the first here.
  const auto field = [&fields](size_t number) { return fields[number - 3]; };
  if (fields.size() < 20) return false;
  const auto parent = parseNumber<pid_t>(field(4));
  const auto terminal = parseNumber<int>(field(7));
  const auto user = parseNumber(field(14));
  const auto system = parseNumber(field(15));
  const auto start = parseNumber(field(22));
  if (!parent || !terminal || !user || !system || !start) return false;
  stat.parent = *parent;
  stat.terminal = *terminal;
  stat.cpu_ticks = *user + *system;
  stat.start_ticks = *start;
  return true;
}

ProcessTable makeProcessTable(const std::vector<pid_t>& pids) {
  ProcessTable table;
  table.titles = {"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"};
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  for (const pid_t pid : pids) {
    try {
      auto row =
          makeRow(pid, static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec));
      if (!row.empty()) table.rows.push_back(std::move(row));
    } catch (const Error&) {
      // Gone between the listing and now.
    }
  }
  return table;
}

}  // namespace hull::guest
