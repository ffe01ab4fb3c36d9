// Times, events, execs.
#include "daemon/api/shapes.h"

#include <cstdio>
#include <ctime>

#include "daemon/engine/json_fields.h"
#include "daemon/vm/output_log.h"

namespace hull::engine::api {

namespace {
constexpr int64_t kSecondNs = 1'000'000'000;
}

std::string dump(const Json& value) {
  return fields::dump(value) + "\n";
}

std::string timeText(int64_t ns) {
  return ns == 0 ? "0001-01-01T00:00:00Z" : formatLogTime(ns, false);
}

int64_t parseTime(const std::string& text) {
  std::tm parts{};
  int read = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &parts.tm_year, &parts.tm_mon,
                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &read) != 6 ||
      parts.tm_year < 1970 || parts.tm_year > 9999) {
    return 0;
  }
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  int64_t ns = int64_t{timegm(&parts)} * kSecondNs;
  const char* rest = text.c_str() + read;
  if (*rest == '.') {
    int64_t unit = kSecondNs / 10;
    for (++rest; *rest >= '0' && *rest <= '9'; ++rest, unit /= 10) ns += (*rest - '0') * unit;
  }
  int hours = 0, minutes = 0;
  char sign = 0;
  if (std::sscanf(rest, "%c%2d:%2d", &sign, &hours, &minutes) == 3 &&
      (sign == '+' || sign == '-')) {
    const int64_t offset = (int64_t{hours} * 60 + minutes) * 60 * kSecondNs;
    ns += sign == '+' ? -offset : offset;
  }
  return ns;
}

std::string humanDuration(int64_t seconds) {
  const auto count = [](int64_t number, const char* unit) {
    return std::to_string(number) + " " + unit;
  };
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (seconds < 60) return count(seconds, "seconds");
  const int64_t minutes = seconds / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return count(minutes, "minutes");
  const int64_t hours = (seconds + 1800) / 3600;
  if (hours == 1) return "About an hour";
  if (hours < 48) return count(hours, "hours");
  if (hours < 24 * 7 * 2) return count(hours / 24, "days");
  if (hours < 24 * 30 * 2) return count(hours / 24 / 7, "weeks");
  if (hours < 24 * 365 * 2) return count(hours / 24 / 30, "months");
  return count(hours / 24 / 365, "years");
}

Json execJson(const Exec& exec) {
  const Exec::State state = exec.state();
  const ExecSpec& spec = exec.spec();
  const std::vector<std::string> rest(spec.arguments.begin() + 1, spec.arguments.end());
  return {{"ID", exec.id()},
          {"Running", state.running},
          {"ExitCode", state.exit_code ? Json(*state.exit_code) : Json()},
          {"ProcessConfig",
           {{"tty", spec.tty},
            {"entrypoint", spec.arguments.front()},
            {"arguments", rest},
            {"privileged", spec.privileged},
            {"user", spec.user}}},
          {"OpenStdin", spec.attach_stdin},
          {"OpenStderr", spec.attach_stderr},
          {"OpenStdout", spec.attach_stdout},
          {"CanRemove", false},
          {"ContainerID", exec.container()->id()},
          {"DetachKeys", spec.detach_keys},
          {"Pid", state.pid}};
}

Json eventJson(const Event& event) {
  Json json{{"Type", event.type},
            {"Action", event.action},
            {"Actor", {{"ID", event.id}, {"Attributes", event.attributes}}},
            {"scope", "local"},
            {"time", event.time_ns / kSecondNs},
            {"timeNano", event.time_ns}};
  if (event.type == "container" || event.type == "image") {  // the old form, still read by some
    json["status"] = event.action;
    json["id"] = event.id;
    const auto from = event.attributes.find("image");
    if (from != event.attributes.end()) json["from"] = from->second;
  }
  return json;
}

}  // namespace hull::engine::api
