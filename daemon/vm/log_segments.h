// The files of one container's log: the current one, and the older ones that rotation left. A
// position in the log counts bytes from the very first entry on, over all files. A rotated file is
// named "<log>.<position of its first byte>", so the files tell their places themselves, also to a
// reader that finds them while they are rotated. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"

namespace hull::engine {

struct LogSegment {
  std::string path;
  uint64_t base = 0;  // position of its first byte
  uint64_t size = 0;

  uint64_t end() const { return base + size; }
};

// Oldest first; the last one is the current file, which may not exist (size 0).
std::vector<LogSegment> logSegments(const std::string& log_path);
std::string rotatedLogPath(const std::string& log_path, uint64_t base);
uint64_t logDiskBytes(const std::string& log_path);
void removeLog(const std::string& log_path);  // every file of it, the state too

// An open file of the log and where its first byte is.
struct OpenLogSegment {
  Fd file;
  uint64_t base = 0;
};
// The file that holds `position`; the oldest one when that is gone already, the current one when it
// is still to come. An invalid descriptor when there is no log.
OpenLogSegment openLogAt(const std::string& log_path, uint64_t position);

// Where the last `count` lines before the position `end` begin.
uint64_t startOfLogTail(const std::string& log_path, uint64_t end, uint64_t count);

}  // namespace hull::engine
