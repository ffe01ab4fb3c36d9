#include "base/log.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "base/log_context.h"

namespace hull::log {

namespace {

constexpr size_t kMaxLineBytes = 8192;

std::atomic<Format> line_format = Format::kText;
thread_local std::string request_id;

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

// Everything but printable ASCII is escaped byte by byte: the line is valid JSON whatever comes.
void appendJson(std::string& line, const char* key, std::string_view text) {
  line += line.size() > 1 ? ",\"" : "\"";
  line += key;
  line += "\":\"";
  for (const char c : text) {
    if (line.size() >= kMaxLineBytes) break;
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') line += '\\';
    if (code >= 0x20 && code < 0x7f) {
      line += c;
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", code);
      line += escaped;
    }
  }
  line += '"';
}

std::string jsonLine(const char* stamp, const char* level, std::string_view message) {
  std::string line = "{";
  appendJson(line, "time", stamp);
  appendJson(line, "level", level);
  appendJson(line, "part", part());
  if (!request_id.empty()) appendJson(line, "request", request_id);
  appendJson(line, "message", message);
  return line + "}\n";
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
  std::snprintf(stamp, sizeof stamp, ".%03ldZ", now.tv_nsec / 1000000);
  line += stamp;
  if (line_format.load(std::memory_order_relaxed) == Format::kJson) {
    line = jsonLine(line.c_str(), name, message);
  } else {
    line += std::string(" ") + name + " " + part() + ": ";
    if (!request_id.empty()) line += "[" + request_id + "] ";
    appendEscaped(line, message);
    line += '\n';
  }
  [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void setLevel(Level least) {
  least_level = least;
}
void setFormat(Format format) {
  line_format = format;
}
RequestScope::RequestScope(std::string_view id) {
  request_id = id;
}
RequestScope::~RequestScope() {
  request_id.clear();
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
