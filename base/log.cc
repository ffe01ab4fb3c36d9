#include "base/log.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

namespace hull::log {

namespace {

constexpr size_t kMaxLineBytes = 8192;

std::atomic<Level> least_level = getenv("HULL_DEBUG") ? Level::kDebug : Level::kInfo;
std::string& part() {
  static std::string name = "hull";
  return name;
}

void appendEscaped(std::string& line, std::string_view text) {
  for (const char c : text) {
    if (line.size() >= kMaxLineBytes) {
      line += "…";
      return;
    }
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code != 0x7f) {
      line += c;
    } else {
      char escaped[5];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", code);
      line += escaped;
    }
  }
}

void write(Level level, const char* name, std::string_view message) {
  if (level < least_level.load(std::memory_order_relaxed)) return;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char stamp[48];
  const size_t length = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
  std::string line(stamp, length);
  std::snprintf(stamp, sizeof stamp, ".%03ldZ %s ", now.tv_nsec / 1000000, name);
  line += stamp;
  line += part();
  line += ": ";
  appendEscaped(line, message);
  line += '\n';
  [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void setLevel(Level least) {
  least_level = least;
}
void setPart(std::string_view name) {
  part() = name;
}

void debug(std::string_view message) {
  write(Level::kDebug, "DEBUG", message);
}
void info(std::string_view message) {
  write(Level::kInfo, "INFO", message);
}
void warning(std::string_view message) {
  write(Level::kWarning, "WARN", message);
}
void error(std::string_view message) {
  write(Level::kError, "ERROR", message);
}

}  // namespace hull::log
