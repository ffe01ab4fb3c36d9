// Log lines on standard error: "2026-01-31T12:00:00.123Z INFO part: message". Control characters in
// messages are escaped, so that hostile text cannot forge lines. Any thread; one write per line.
#pragma once

#include <string_view>

namespace hull::log {

enum class Level { kDebug, kInfo, kWarning, kError };

void setLevel(Level least);           // default kInfo, or kDebug when HULL_DEBUG is set
void setPart(std::string_view name);  // the program's name in each line; call once, early

void debug(std::string_view message);
void info(std::string_view message);
void warning(std::string_view message);
void error(std::string_view message);

}  // namespace hull::log
