#include "image/build/mounts.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "image/build/suggest.h"

namespace hull::build {

namespace {

using Type = MountFlag::Type;

constexpr std::array<std::string_view, 5> kTypes = {"bind", "cache", "tmpfs", "secret", "ssh"};
constexpr std::array<std::string_view, 8> kBindKeys = {"from", "source",    "target", "readonly",
                                                       "rw",   "readwrite", "ro",     "type"};
constexpr std::array<std::string_view, 13> kCacheKeys = {
    "id",   "target", "ro",   "readonly", "rw",  "readwrite", "sharing",
    "from", "source", "mode", "uid",      "gid", "type"};
constexpr std::array<std::string_view, 3> kTmpfsKeys = {"target", "size", "type"};
constexpr std::array<std::string_view, 8> kSecretKeys = {"id",  "target", "required", "mode",
                                                         "uid", "gid",    "env",      "type"};
constexpr std::array<std::string_view, 7> kSshKeys = {"id",  "target", "required", "mode",
                                                      "uid", "gid",    "type"};

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, "--mount: " + message);
}

std::span<const std::string_view> keysOf(Type type) {
  switch (type) {
    case Type::kBind:
      return kBindKeys;
    case Type::kCache:
      return kCacheKeys;
    case Type::kTmpfs:
      return kTmpfsKeys;
    case Type::kSecret:
      return kSecretKeys;
    case Type::kSsh:
      return kSshKeys;
  }
  return {};
}

// Fields of one CSV record: separated by commas, a quoted one may hold them.
std::vector<std::string> splitFields(std::string_view text) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      const bool doubled = quoted && i + 1 < text.size() && text[i + 1] == '"';
      if (doubled) fields.back() += text[i++];
      if (!doubled) quoted = !quoted;
    } else if (text[i] == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += text[i];
    }
  }
  if (quoted) fail("a quote is not closed");
  return fields;
}

std::vector<std::pair<std::string, std::optional<std::string>>> splitOptions(
    std::string_view text) {
  std::vector<std::pair<std::string, std::optional<std::string>>> options;
  for (const auto& field : splitFields(text)) {
    const size_t equals = field.find('=');
    std::string key = field.substr(0, equals);
    for (char& c : key) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (key == "src") key = "source";
    if (key == "dst" || key == "destination") key = "target";
    options.emplace_back(
        key, equals == std::string::npos ? std::nullopt : std::optional(field.substr(equals + 1)));
  }
  return options;
}

bool parseSwitch(const std::string& key, const std::optional<std::string>& value) {
  if (!value || *value == "true" || *value == "1") return true;
  if (*value == "false" || *value == "0") return false;
  fail(key + "=" + *value + " is neither true nor false");
}

uint32_t parseNumber(const std::string& key, const std::string& text, int base) {
  uint32_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (failed != std::errc{} || end != text.data() + text.size())
    fail(key + "=" + text + " is not a number" + (base == 8 ? " in octal" : ""));
  return number;
}

Type typeOf(const std::string& name) {
  const auto found = std::find(kTypes.begin(), kTypes.end(), name);
  if (found == kTypes.end()) fail("unsupported type \"" + name + "\"" + suggestion(name, kTypes));
  return static_cast<Type>(found - kTypes.begin());
}

void setOption(MountFlag& mount, const std::string& key, const std::string& value) {
  if (value.empty() && key != "from" && key != "source") fail(key + " needs a value");
  if (key == "id") mount.id = value;
  if (key == "source") mount.source = value;
  if (key == "target") mount.target = value;
  if (key == "env") mount.env = value;
  if (key == "size") mount.size_bytes = parseByteSize(value, "--mount: size");
  if (key == "uid") mount.uid = parseNumber(key, value, 10);
  if (key == "gid") mount.gid = parseNumber(key, value, 10);
  if (key == "mode") {
    const uint32_t mode = parseNumber(key, value, 8);
    if (mode > 07777) fail("mode=" + value + " is more than 7777");
    mount.mode = static_cast<uint16_t>(mode);
  }
  if (key == "sharing") {
    if (value == "shared")
      mount.sharing = MountFlag::Sharing::kShared;
    else if (value == "private")
      mount.sharing = MountFlag::Sharing::kPrivate;
    else if (value == "locked")
      mount.sharing = MountFlag::Sharing::kLocked;
    else
      fail("unsupported sharing \"" + value + "\" (shared, private or locked)");
  }
}

void check(const MountFlag& mount) {
  const bool needs_target =
      mount.type == Type::kBind || mount.type == Type::kCache || mount.type == Type::kTmpfs;
  if (needs_target && mount.target.empty()) fail("target is needed: target=/path");
  if (mount.type == Type::kSecret && mount.id.empty() && mount.target.empty())
    fail("a secret needs id=…");
  if (needs_target && mount.target.find_first_not_of("/.") == std::string::npos)
    fail("target \"" + mount.target + "\": the root cannot be mounted over");
}

}  // namespace

uint64_t parseByteSize(const std::string& text, const std::string& what) {
  constexpr std::string_view kUnits = "bkmgt";
  uint64_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  for (char& c : unit) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (unit.size() > 1 && unit.ends_with('b')) unit.pop_back();
  if (unit.ends_with('i') && unit.size() == 2) unit.pop_back();
  const size_t power = unit.empty() ? 0 : kUnits.find(unit);
  if (failed != std::errc{} || power == std::string_view::npos || unit.size() > 1 ||
      number > (uint64_t{1} << 62) >> (10 * power)) {
    throw Error(ErrorKind::kInvalidArgument, what + ": invalid size \"" + text + "\" (like 64m)");
  }
  return number << (10 * power);
}

MountFlag parseMount(std::string_view text,
                     const std::function<std::string(const std::string&)>& expand) {
  const auto options = splitOptions(text);
  MountFlag mount;
  for (const auto& [key, value] : options) {
    if (key == "type") mount.type = typeOf(expand(value.value_or("")));
  }
  mount.read_only = mount.type == Type::kBind;
  const auto known = keysOf(mount.type);
  for (const auto& [key, value] : options) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail("unexpected key \"" + key + "\"" + suggestion(key, known));
    if (key == "type") continue;
    if (key == "ro" || key == "readonly") {
      mount.read_only = parseSwitch(key, value);
    } else if (key == "rw" || key == "readwrite") {
      mount.read_only = !parseSwitch(key, value);
    } else if (key == "required") {
      mount.required = parseSwitch(key, value);
    } else if (key == "from") {
      if (value.value_or("").find('$') != std::string::npos)
        fail("'from' doesn't support variable expansion, define alias stage instead");
      mount.from = value.value_or("");
    } else {
      setOption(mount, key, expand(value.value_or("")));
    }
  }
  check(mount);
  return mount;
}

std::string mountFrom(std::string_view text) {
  for (const auto& [key, value] : splitOptions(text)) {
    if (key == "from") return value.value_or("");
  }
  return {};
}

}  // namespace hull::build
