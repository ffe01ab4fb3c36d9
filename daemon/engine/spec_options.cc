#include "daemon/engine/spec_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::chrono::milliseconds kLeastHealthTime{1};  // Docker's bound
constexpr uint64_t kLocalMaxBytes = uint64_t{20} << 20;   // Docker's defaults of "local"
constexpr uint32_t kLocalMaxFiles = 5;
constexpr double kMaxByteSize = 1e15;

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

void readDuration(const Json& health, const char* key, std::chrono::nanoseconds& into) {
  const std::chrono::nanoseconds value(fields::integer(health, key));
  if (value.count() == 0) return;
  if (value < kLeastHealthTime) {
    invalid(std::string(key) + " in Healthcheck cannot be less than 1ms");
  }
  into = value;
}

std::vector<std::string> healthCommand(const Json& config, std::vector<std::string> test) {
  if (test.empty() || test[0] == "NONE" || test[0].empty()) return {};
  const std::string kind = test[0];
  test.erase(test.begin());
  if (kind == "CMD") {
    if (test.empty()) invalid("Healthcheck: CMD has no command");
    return test;
  }
  if (kind == "CMD-SHELL") {
    if (test.size() != 1) invalid("Healthcheck: CMD-SHELL takes one string");
    auto command = fields::texts(config, "Shell");
    if (command.empty()) command = {"/bin/sh", "-c"};
    command.push_back(test[0]);
    return command;
  }
  invalid("Unknown healthcheck type '" + kind + "' (expected 'CMD', 'CMD-SHELL' or 'NONE')");
}

uint32_t logFiles(const std::string& text) {
  int64_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, count);
  if (failed != std::errc() || rest != end || count < 1 || count > kMaxLogFiles) {
    invalid("invalid log option max-file=" + text + ": expected a number from 1 to " +
            std::to_string(kMaxLogFiles));
  }
  return static_cast<uint32_t>(count);
}

// Options that change nothing here are Docker's all the same.
bool isHarmless(const std::string& option) {
  constexpr std::array<std::string_view, 8> kKnown{
      "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"};
  return std::find(kKnown.begin(), kKnown.end(), option) != kKnown.end();
}

}  // namespace

uint64_t parseByteSize(const std::string& text, const std::string& option) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, number);
  std::string unit(rest, end);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (unit.ends_with("ib")) unit.resize(unit.size() - 2);
  if (unit.size() > 1 && unit.ends_with('b')) unit.resize(unit.size() - 1);
  const size_t power = unit.empty() ? 0 : std::string_view("bkmgt").find(unit);
  if (failed != std::errc() || unit.size() > 1 || power == std::string_view::npos || number < 0) {
    invalid("invalid " + option + ": '" + text + "' is no size (write it like 10m)");
  }
  const double bytes = number * std::pow(1024.0, static_cast<double>(power));
  if (!(bytes <= kMaxByteSize)) invalid("invalid " + option + ": '" + text + "' is too large");
  return static_cast<uint64_t>(bytes);
}

HealthSpec readHealth(const Json& config) {
  HealthSpec spec;
  const Json* health = fields::find(config, "Healthcheck");
  if (!health) return spec;
  if (!health->is_object()) fields::wrongType("Healthcheck", "an object");
  spec.command = healthCommand(config, fields::texts(*health, "Test"));
  readDuration(*health, "Interval", spec.interval);
  readDuration(*health, "Timeout", spec.timeout);
  readDuration(*health, "StartPeriod", spec.start_period);
  readDuration(*health, "StartInterval", spec.start_interval);
  const int64_t retries = fields::integer(*health, "Retries");
  if (retries < 0) invalid("Retries in Healthcheck cannot be negative");
  if (retries > 0) spec.retries = retries;
  return spec;
}

LogSpec readLog(const Json& host) {
  LogSpec spec;
  const Json* log = fields::find(host, "LogConfig");
  if (!log) return spec;
  const std::string type = fields::text(*log, "Type");
  if (type == "local") {
    spec = {LogDriver::kLocal, kLocalMaxBytes, kLocalMaxFiles};
  } else if (type == "none") {
    spec.driver = LogDriver::kNone;
    return spec;
  } else if (type != "json-file" && !type.empty()) {
    throw Error(ErrorKind::kNotSupported,
                "logger: no log driver named '" + type +
                    "' is registered: use json-file, local or none, and collect the logs with "
                    "the logs call");
  }
  for (const auto& [option, value] : fields::textMap(*log, "Config")) {
    if (option == "max-size") {
      spec.max_bytes = value == "-1" ? 0 : parseByteSize(value, "log option max-size");
    } else if (option == "max-file") {
      spec.max_files = logFiles(value);
    } else if (!isHarmless(option)) {
      invalid("unknown log opt '" + option + "' for " + type + " log driver");
    }
  }
  if (spec.driver == LogDriver::kJsonFile && spec.max_files > 1 && spec.max_bytes == 0) {
    invalid("log option max-file needs max-size");
  }
  return spec;
}

}  // namespace hull::engine
