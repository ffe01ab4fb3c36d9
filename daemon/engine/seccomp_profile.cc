#include "daemon/engine/seccomp_profile.h"

#include <errno.h>
#include <seccomp.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "daemon/engine/container_spec.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr size_t kMaxEntries = 4096;
constexpr size_t kMaxNames = 1024;  // of one entry
constexpr size_t kMaxArguments = 6;
constexpr size_t kMaxFilterBytes = 4096 * 8;  // BPF_MAXINSNS instructions
constexpr int64_t kMaxErrno = 4095;

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, "Decoding seccomp profile failed: " + message);
}

using Filter = std::unique_ptr<void, void (*)(scmp_filter_ctx)>;

void check(int result, const std::string& what) {
  if (result < 0) invalid(what + ": " + sysError("libseccomp", -result).what());
}

uint32_t errnoOf(const Json& object, const char* key) {
  const int64_t number = fields::integer(object, key, EPERM);
  if (number < 0 || number > kMaxErrno) invalid(std::string(key) + " is no error number");
  return static_cast<uint32_t>(number);
}

uint32_t actionOf(const std::string& name, uint32_t error) {
  static const std::map<std::string, uint32_t> kActions{
      {"SCMP_ACT_KILL", SCMP_ACT_KILL},   {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
      {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},   {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
      {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW}, {"SCMP_ACT_LOG", SCMP_ACT_LOG}};
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(error);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(error);
  const auto found = kActions.find(name);
  if (found == kActions.end()) invalid("unknown action '" + name + "'");
  return found->second;
}

scmp_compare comparisonOf(const std::string& name) {
  static const std::map<std::string, scmp_compare> kComparisons{
      {"SCMP_CMP_NE", SCMP_CMP_NE},
      {"SCMP_CMP_LT", SCMP_CMP_LT},
      {"SCMP_CMP_LE", SCMP_CMP_LE},
      {"SCMP_CMP_EQ", SCMP_CMP_EQ},
      {"SCMP_CMP_GE", SCMP_CMP_GE},
      {"SCMP_CMP_GT", SCMP_CMP_GT},
      {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  const auto found = kComparisons.find(name);
  if (found == kComparisons.end()) invalid("unknown comparison '" + name + "'");
  return found->second;
}

uint64_t unsignedOf(const Json& object, const char* key) {
  const Json* value = fields::find(object, key);
  if (!value) return 0;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  return static_cast<uint64_t>(fields::integer(object, key));
}

std::vector<scmp_arg_cmp> argumentsOf(const Json& entry) {
  std::vector<scmp_arg_cmp> arguments;
  const Json* list = fields::find(entry, "args");
  if (!list) return arguments;
  if (!list->is_array() || list->size() > kMaxArguments) invalid("args: expected up to 6");
  for (const Json& item : *list) {
    const uint64_t index = unsignedOf(item, "index");
    if (index >= kMaxArguments) invalid("args: index is 0 to 5");
    const auto compare = comparisonOf(fields::text(item, "op"));
    const uint64_t value = unsignedOf(item, "value"), second = unsignedOf(item, "valueTwo");
    arguments.push_back({static_cast<unsigned>(index), compare, value, second});
  }
  return arguments;
}

bool hasAll(const std::vector<std::string>& names, uint64_t capabilities) {
  return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return (capabilitySet({name}, {"ALL"}, false) & capabilities) != 0;
  });
}

bool applies(const Json& entry, uint64_t capabilities) {
  const auto named = [](const std::vector<std::string>& names, const char* one) {
    return std::find(names.begin(), names.end(), one) != names.end();
  };
  if (const Json* includes = fields::find(entry, "includes")) {
    const auto arches = fields::texts(*includes, "arches");
    if (!arches.empty() && !named(arches, "amd64")) return false;
    if (!hasAll(fields::texts(*includes, "caps"), capabilities)) return false;
  }
  if (const Json* excludes = fields::find(entry, "excludes")) {
    if (named(fields::texts(*excludes, "arches"), "amd64")) return false;
    const auto caps = fields::texts(*excludes, "caps");
    if (std::any_of(caps.begin(), caps.end(),
                    [&](const std::string& name) { return hasAll({name}, capabilities); })) {
      return false;
    }
  }
  return true;
}

// With several comparisons of one argument libseccomp wants a rule each (as runc does).
void addRule(scmp_filter_ctx filter, uint32_t action, int call,
             const std::vector<scmp_arg_cmp>& arguments, const std::string& name) {
  std::array<int, kMaxArguments> uses{};
  for (const auto& argument : arguments) ++uses[argument.arg];
  const bool repeated = std::any_of(uses.begin(), uses.end(), [](int n) { return n > 1; });
  if (!repeated) {
    check(seccomp_rule_add_array(filter, action, call, static_cast<unsigned>(arguments.size()),
                                 arguments.data()),
          "rule for " + name);
    return;
  }
  for (const auto& argument : arguments) {
    check(seccomp_rule_add_array(filter, action, call, 1, &argument), "rule for " + name);
  }
}

void addEntry(scmp_filter_ctx filter, uint32_t default_action, const Json& entry,
              uint64_t capabilities) {
  if (!entry.is_object()) invalid("syscalls: expected objects");
  if (!applies(entry, capabilities)) return;
  std::vector<std::string> names = fields::texts(entry, "names");
  if (const std::string one = fields::text(entry, "name"); !one.empty()) names.push_back(one);
  if (names.size() > kMaxNames) invalid("too many names in one entry");
  const uint32_t action = actionOf(fields::text(entry, "action"), errnoOf(entry, "errnoRet"));
  if (action == default_action) return;  // libseccomp refuses what says nothing
  const auto arguments = argumentsOf(entry);
  for (const std::string& name : names) {
    const int call = seccomp_syscall_resolve_name(name.c_str());
    if (call != __NR_SCMP_ERROR) addRule(filter, action, call, arguments, name);
  }
}

void addArchitectures(scmp_filter_ctx filter, const Json& profile) {
  std::vector<std::string> names = fields::texts(profile, "architectures");
  if (const Json* map = fields::find(profile, "archMap"); map && map->is_array()) {
    for (const Json& item : *map) {
      if (fields::text(item, "architecture") != "SCMP_ARCH_X86_64") continue;
      for (const auto& sub : fields::texts(item, "subArchitectures")) names.push_back(sub);
    }
  }
  for (const std::string& name : names) {
    const uint32_t arch = name == "SCMP_ARCH_X86"   ? SCMP_ARCH_X86
                          : name == "SCMP_ARCH_X32" ? SCMP_ARCH_X32
                                                    : SCMP_ARCH_X86_64;
    if (const int added = seccomp_arch_add(filter, arch); added != -EEXIST) {
      check(added, "architecture " + name);
    }
  }
}

}  // namespace

std::string compileSeccomp(std::string_view profile, uint64_t capabilities) {
  if (profile.size() > kMaxSeccompProfileBytes) invalid("it is too large");
  const Json json = fields::parseObject(profile, "the seccomp profile");
  const uint32_t default_action =
      actionOf(fields::text(json, "defaultAction"), errnoOf(json, "defaultErrnoRet"));
  const Filter filter(seccomp_init(default_action), seccomp_release);
  if (!filter) invalid("unusable default action");
  // no_new_privs is the container's own option.
  check(seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_NNP, 0), "set up");
  addArchitectures(filter.get(), json);
  if (const Json* list = fields::find(json, "syscalls")) {
    if (!list->is_array() || list->size() > kMaxEntries) invalid("syscalls: expected a list");
    for (const Json& entry : *list) addEntry(filter.get(), default_action, entry, capabilities);
  }
  const Fd file = makeMemfd("seccomp");
  check(seccomp_export_bpf(filter.get(), file.get()), "compile");
  std::string program(static_cast<size_t>(fileSize(file.get())), '\0');
  if (program.size() > kMaxFilterBytes) invalid("its filter has too many instructions");
  preadFull(file.get(), std::as_writable_bytes(std::span(program)), 0);
  return program;
}

}  // namespace hull::engine
