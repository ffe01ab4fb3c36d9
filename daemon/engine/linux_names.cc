// Names of signals and capabilities as Docker's users write them.
#include <signal.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/error.h"
#include "daemon/engine/container_spec.h"

namespace hull::engine {

namespace {

struct SignalName {
  const char* name;
  uint32_t number;
};
constexpr SignalName kSignals[] = {
    {"HUP", 1},   {"INT", 2},   {"QUIT", 3},  {"ILL", 4},     {"TRAP", 5},    {"ABRT", 6},
    {"IOT", 6},   {"BUS", 7},   {"FPE", 8},   {"KILL", 9},    {"USR1", 10},   {"SEGV", 11},
    {"USR2", 12}, {"PIPE", 13}, {"ALRM", 14}, {"TERM", 15},   {"STKFLT", 16}, {"CHLD", 17},
    {"CLD", 17},  {"CONT", 18}, {"STOP", 19}, {"TSTP", 20},   {"TTIN", 21},   {"TTOU", 22},
    {"URG", 23},  {"XCPU", 24}, {"XFSZ", 25}, {"VTALRM", 26}, {"PROF", 27},   {"WINCH", 28},
    {"IO", 29},   {"POLL", 29}, {"PWR", 30},  {"SYS", 31},    {"RTMIN", 34},  {"RTMAX", 64}};
constexpr uint32_t kLastSignal = 64;

// Bit number = index (linux/capability.h).
constexpr const char* kCapabilities[] = {"CHOWN",
                                         "DAC_OVERRIDE",
                                         "DAC_READ_SEARCH",
                                         "FOWNER",
                                         "FSETID",
                                         "KILL",
                                         "SETGID",
                                         "SETUID",
                                         "SETPCAP",
                                         "LINUX_IMMUTABLE",
                                         "NET_BIND_SERVICE",
                                         "NET_BROADCAST",
                                         "NET_ADMIN",
                                         "NET_RAW",
                                         "IPC_LOCK",
                                         "IPC_OWNER",
                                         "SYS_MODULE",
                                         "SYS_RAWIO",
                                         "SYS_CHROOT",
                                         "SYS_PTRACE",
                                         "SYS_PACCT",
                                         "SYS_ADMIN",
                                         "SYS_BOOT",
                                         "SYS_NICE",
                                         "SYS_RESOURCE",
                                         "SYS_TIME",
                                         "SYS_TTY_CONFIG",
                                         "MKNOD",
                                         "LEASE",
                                         "AUDIT_WRITE",
                                         "AUDIT_CONTROL",
                                         "SETFCAP",
                                         "MAC_OVERRIDE",
                                         "MAC_ADMIN",
                                         "SYSLOG",
                                         "WAKE_ALARM",
                                         "BLOCK_SUSPEND",
                                         "AUDIT_READ",
                                         "PERFMON",
                                         "BPF",
                                         "CHECKPOINT_RESTORE"};
constexpr uint64_t kAllCapabilities = (uint64_t{1} << std::size(kCapabilities)) - 1;
constexpr const char* kDefaultCapabilities[] = {
    "CHOWN",   "DAC_OVERRIDE",     "FOWNER",  "FSETID",     "KILL",  "SETGID",      "SETUID",
    "SETPCAP", "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"};

std::string upper(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return result;
}

std::optional<uint32_t> parseNumber(std::string_view text) {
  uint32_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

uint64_t capabilityBits(std::string_view name) {
  std::string wanted = upper(name);
  if (wanted == "ALL") return kAllCapabilities;
  if (wanted.starts_with("CAP_")) wanted.erase(0, 4);
  const auto* found = std::find_if(std::begin(kCapabilities), std::end(kCapabilities),
                                   [&](const char* candidate) { return wanted == candidate; });
  if (found == std::end(kCapabilities)) {
    throw Error(ErrorKind::kInvalidArgument,
                "invalid capability: unknown capability: \"CAP_" + wanted + "\"");
  }
  return uint64_t{1} << (found - std::begin(kCapabilities));
}

}  // namespace

uint32_t signalNumber(std::string_view name) {
  const Error invalid(ErrorKind::kInvalidArgument, "invalid signal: " + std::string(name));
  if (const auto number = parseNumber(name)) {
    if (*number == 0 || *number > kLastSignal) throw invalid;
    return *number;
  }
  std::string wanted = upper(name);
  if (wanted.starts_with("SIG")) wanted.erase(0, 3);
  uint32_t offset = 0;
  const size_t sign = wanted.find_first_of("+-");
  if (sign != std::string::npos) {
    const auto parsed = parseNumber(std::string_view(wanted).substr(sign + 1));
    const std::string base = wanted.substr(0, sign);
    if (!parsed || *parsed > 30 || base != (wanted[sign] == '+' ? "RTMIN" : "RTMAX")) throw invalid;
    offset = *parsed;
    return base == "RTMIN" ? 34 + offset : 64 - offset;
  }
  for (const SignalName& known : kSignals) {
    if (wanted == known.name) return known.number;
  }
  throw invalid;
}

uint64_t capabilitySet(const std::vector<std::string>& add, const std::vector<std::string>& drop,
                       bool privileged) {
  uint64_t set = 0;
  for (const char* name : kDefaultCapabilities) set |= capabilityBits(name);
  if (privileged) set = kAllCapabilities;
  uint64_t added = 0, dropped = 0;
  for (const std::string& name : add) added |= capabilityBits(name);
  for (const std::string& name : drop) dropped |= capabilityBits(name);
  // As Docker: with ALL dropped only what is added is left; what is named in both is added.
  if (dropped == kAllCapabilities) return added;
  if (added == kAllCapabilities) return kAllCapabilities & ~dropped;
  return (set & ~dropped) | added;
}

}  // namespace hull::engine
