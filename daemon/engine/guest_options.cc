// Specification: limits, and what the guest is to make of its own kernel.
#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "base/error.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/spec_options.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr int64_t kDefaultPeriodUs = 100'000;
constexpr int64_t kLeastPeriodUs = 1'000, kMostPeriodUs = 1'000'000;  // the kernel's bounds
constexpr int64_t kLeastQuotaUs = 1'000;
constexpr int64_t kNanoCpu = 1'000'000'000;
constexpr int64_t kMaxCpuShares = 262'144;
constexpr uint32_t kMaxCpuNumber = 4095;
constexpr uint64_t kLeastDiskBytes = uint64_t{16} << 20;
constexpr size_t kMaxSysctls = 256;
constexpr size_t kMaxDeviceRules = 64;

constexpr uint32_t kMknod = 1, kRead = 2, kWrite = 4;
constexpr uint32_t kAllAccess = kMknod | kRead | kWrite;

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

void readQuota(const Json& host, LimitSpec& spec) {
  const int64_t nano = fields::integer(host, "NanoCpus");
  const int64_t quota = fields::integer(host, "CpuQuota");
  const int64_t period = fields::integer(host, "CpuPeriod");
  if (nano > 0 && (quota > 0 || period > 0)) {
    invalid("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set");
  }
  if (period != 0 && (period < kLeastPeriodUs || period > kMostPeriodUs)) {
    invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  if (quota > 0 && quota < kLeastQuotaUs) {
    invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  }
  const int64_t used = period > 0 ? period : kDefaultPeriodUs;
  spec.cpu_period_us = static_cast<uint64_t>(used);
  if (quota > 0) spec.cpu_quota_us = static_cast<uint64_t>(quota);
  if (nano > 0) {
    spec.cpu_quota_us = static_cast<uint64_t>(
        std::max<int64_t>(nano / (kNanoCpu / kDefaultPeriodUs), kLeastQuotaUs));
  }
}

uint64_t diskBytes(const Json& host) {
  uint64_t bytes = 0;
  for (const auto& [name, value] : fields::textMap(host, "StorageOpt")) {
    if (name != "size") invalid("invalid storage option \"" + name + "\": only size is supported");
    bytes = parseByteSize(value, "storage option size");
    if (bytes < kLeastDiskBytes) invalid("invalid storage option size: at least 16m");
  }
  return bytes;
}

// --- devices ---

// What the guest's kernel offers by itself; anything else would be a device of the host.
bool isGuestDevice(const std::string& path) {
  constexpr std::array<std::string_view, 9> kDevices{
      "/dev/fuse", "/dev/net/tun", "/dev/loop-control", "/dev/null", "/dev/zero",
      "/dev/full", "/dev/random",  "/dev/urandom",      "/dev/kmsg"};
  return std::find(kDevices.begin(), kDevices.end(), path) != kDevices.end();
}

guest::DeviceRule ruleOfGuestDevice(const std::string& path) {
  if (path == "/dev/fuse") return {'c', 10, 229, kAllAccess};
  if (path == "/dev/net/tun") return {'c', 10, 200, kAllAccess};
  if (path == "/dev/loop-control") return {'c', 10, 237, kAllAccess};
  return {'c', 1, -1, kAllAccess};
}

// Docker's: every node may be made, the harmless ones used.
std::vector<guest::DeviceRule> defaultDeviceRules() {
  std::vector<guest::DeviceRule> rules{{'c', -1, -1, kMknod}, {'b', -1, -1, kMknod}};
  constexpr std::pair<int, int> kHarmless[] = {{1, 3}, {1, 5}, {1, 7}, {1, 8},   {1, 9},
                                               {5, 0}, {5, 1}, {5, 2}, {136, -1}};
  for (const auto& [major_number, minor_number] : kHarmless) {
    rules.push_back({'c', major_number, minor_number, kAllAccess});
  }
  return rules;
}

int32_t deviceNumber(std::string_view text, const std::string& rule) {
  if (text == "*") return -1;
  int32_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed != std::errc() || end != text.data() + text.size() || number < 0) {
    invalid("invalid device cgroup rule format: '" + rule + "'");
  }
  return number;
}

// "c 1:3 rwm"
guest::DeviceRule parseDeviceRule(const std::string& text) {
  const size_t colon = text.find(':'), space = text.find(' ', colon);
  if (text.size() < 2 || std::string_view("abc").find(text[0]) == std::string_view::npos ||
      text[1] != ' ' || colon == std::string::npos || space == std::string::npos) {
    invalid("invalid device cgroup rule format: '" + text + "'");
  }
  guest::DeviceRule rule;
  rule.type = static_cast<uint8_t>(text[0]);
  rule.major_number = deviceNumber(std::string_view(text).substr(2, colon - 2), text);
  rule.minor_number =
      deviceNumber(std::string_view(text).substr(colon + 1, space - colon - 1), text);
  for (const char c : text.substr(space + 1)) {
    const size_t bit = std::string_view("mrw").find(c);
    if (bit == std::string_view::npos) invalid("invalid device cgroup rule format: '" + text + "'");
    rule.access |= 1U << bit;
  }
  return rule;
}

void readDevices(const Json& host, GuestSpec& spec) {
  const bool privileged = fields::boolean(host, "Privileged");
  if (!privileged) spec.device_rules = defaultDeviceRules();
  if (const Json* devices = fields::find(host, "Devices")) {
    if (!devices->is_array()) fields::wrongType("Devices", "a list");
    for (const Json& device : *devices) {
      const std::string path = fields::text(device, "PathOnHost");
      const std::string inside = fields::text(device, "PathInContainer");
      if (!isGuestDevice(path) || (!inside.empty() && inside != path)) {
        throw Error(
            ErrorKind::kNotSupported,
            "device " + path +
                ": a container is a virtual machine and sees no device of the host; its own "
                "kernel offers /dev/fuse, /dev/net/tun and /dev/loop-control, under these "
                "names, and --privileged all it has");
      }
      spec.devices.push_back(path);
      if (!privileged) spec.device_rules.push_back(ruleOfGuestDevice(path));
    }
  }
  for (const std::string& rule : fields::texts(host, "DeviceCgroupRules")) {
    const guest::DeviceRule parsed = parseDeviceRule(rule);
    if (!privileged) spec.device_rules.push_back(parsed);
  }
  if (spec.device_rules.size() > kMaxDeviceRules) invalid("too many device rules");
}

// Names a file below /proc/sys and nothing else.
bool isSysctlName(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find("..") == std::string::npos &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

void readSysctls(const Json& host, GuestSpec& spec) {
  for (const auto& [name, value] : fields::textMap(host, "Sysctls")) {
    spec.sysctls.push_back(name + "=" + value);
    checkSysctl(spec.sysctls.back());
    if (spec.sysctls.size() > kMaxSysctls) invalid("too many sysctls");
  }
}

void readSeccomp(const Json& host, GuestSpec& spec) {
  if (fields::boolean(host, "Privileged")) return;
  for (const std::string& option : fields::texts(host, "SecurityOpt")) {
    const size_t split = option.find_first_of("=:");
    if (option.substr(0, split) != "seccomp" || split == std::string::npos) continue;
    const std::string value = option.substr(split + 1);
    spec.seccomp_profile = value == "unconfined" || value == "builtin" ? "" : value;
  }
}

}  // namespace

std::vector<uint32_t> parseCpuList(const std::string& text, const std::string& option) {
  std::set<uint32_t> numbers;
  const auto fail = [&] {
    invalid("invalid " + option + ": '" + text + "' (write it like 0-3,7)");
  };
  const auto number = [&](std::string_view part) {
    uint32_t value = 0;
    const auto [end, failed] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (failed != std::errc() || end != part.data() + part.size() || value > kMaxCpuNumber) fail();
    return value;
  };
  for (size_t start = 0; start < text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string_view part = std::string_view(text).substr(start, comma - start);
    const size_t dash = part.find('-');
    const uint32_t first = number(part.substr(0, dash));
    const uint32_t last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (last < first) fail();
    for (uint32_t cpu = first; cpu <= last; ++cpu) numbers.insert(cpu);
    start = comma + 1;
    if (start == text.size()) fail();  // ends with a comma
  }
  return {numbers.begin(), numbers.end()};
}

namespace {

// A container has one disk, so every path means that one; of several rates for it the least counts.
// 0 is none.
uint64_t readRate(const Json& host, const char* key) {
  uint64_t rate = 0;
  const Json* list = fields::find(host, key);
  if (!list) return rate;
  if (!list->is_array()) fields::wrongType(key, "a list");
  for (const Json& device : *list) {
    if (!device.is_object()) fields::wrongType(key, "a list of objects with Path and Rate");
    const std::string path = fields::text(device, "Path");
    const int64_t wanted = fields::integer(device, "Rate");
    if (!path.starts_with("/dev/")) invalid("bad format for device path: \"" + path + "\"");
    if (wanted < 0) invalid("invalid rate for device: " + path + ": it must not be negative");
    if (wanted == 0) continue;
    const auto value = static_cast<uint64_t>(wanted);
    rate = rate == 0 ? value : std::min(rate, value);
  }
  return rate;
}

DiskLimits readDiskLimits(const Json& host) {
  DiskLimits limits;
  limits.read.bytes.per_second = readRate(host, "BlkioDeviceReadBps");
  limits.read.operations.per_second = readRate(host, "BlkioDeviceReadIOps");
  limits.write.bytes.per_second = readRate(host, "BlkioDeviceWriteBps");
  limits.write.operations.per_second = readRate(host, "BlkioDeviceWriteIOps");
  return limits;
}

}  // namespace

void checkSysctl(const std::string& setting) {
  const size_t equals = setting.find('=');
  if (equals != std::string::npos && isSysctlName(setting.substr(0, equals)) &&
      setting.find('\n') == std::string::npos) {
    return;
  }
  invalid("invalid sysctl \"" + setting + "\": expected a setting like net.ipv4.ip_forward=1");
}

LimitSpec readLimits(const Json& host) {
  LimitSpec spec;
  readQuota(host, spec);
  const int64_t reservation = fields::integer(host, "MemoryReservation");
  const int64_t memory = fields::integer(host, "Memory");
  if (reservation < 0) invalid("Minimum memory reservation allowed is 6MB");
  if (memory > 0 && reservation > memory) {
    invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
  spec.memory_low_bytes = static_cast<uint64_t>(reservation);
  const int64_t shares = fields::integer(host, "CpuShares");
  if (shares < 0 || shares > kMaxCpuShares) {
    invalid("invalid CPU shares: " + std::to_string(shares) + " (0 to 262144)");
  }
  spec.cpu_shares = static_cast<uint64_t>(shares);
  spec.cpus = parseCpuList(fields::text(host, "CpusetCpus"), "value for cpuset cpus");
  spec.writable_disk_bytes = diskBytes(host);
  spec.disks = readDiskLimits(host);
  return spec;
}

GuestSpec readGuest(const Json& host) {
  GuestSpec spec;
  spec.init = fields::boolean(host, "Init");
  const int64_t adjustment = fields::integer(host, "OomScoreAdj");
  if (adjustment < -1000 || adjustment > 1000) {
    invalid("Invalid value " + std::to_string(adjustment) +
            ", range for oom score adj is [-1000, 1000]");
  }
  spec.oom_score_adj = static_cast<int32_t>(adjustment);
  readSysctls(host, spec);
  readDevices(host, spec);
  readSeccomp(host, spec);
  return spec;
}

std::vector<std::string> optionWarnings(const Json& host) {
  std::vector<std::string> warnings;
  const auto set = [&](const char* key) {
    const Json* value = fields::find(host, key);
    if (!value) return false;
    if (value->is_boolean()) return value->get<bool>();
    if (value->is_number()) return value->get<double>() != 0;
    // json::empty() is false for every string.
    if (value->is_string()) return !value->get_ref<const std::string&>().empty();
    return !value->empty();
  };
  if (set("BlkioWeight") || set("BlkioWeightDevice")) {
    warnings.emplace_back(
        "Block I/O weights are not applied: limit it with --device-read-bps, --device-write-bps");
  }
  if (set("CpuRealtimePeriod") || set("CpuRealtimeRuntime")) {
    warnings.emplace_back("Real-time CPU limits are not applied");
  }
  if (set("CpusetMems")) warnings.emplace_back("Memory nodes are not applied: --cpuset-mems");
  if (set("OomKillDisable")) {
    warnings.emplace_back("OomKillDisable is not applied: memory ends with the virtual machine's");
  }
  return warnings;
}

}  // namespace hull::engine
