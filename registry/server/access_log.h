// The access log: one line per request in the combined log format that web servers write, with the
// time taken behind it, or among the other log lines. reopen() is for log rotation. Any thread.
#pragma once

#include <mutex>
#include <string>

#include "base/fd.h"
#include "registry/server/connection.h"

namespace hull::registry {

class AccessLog {
 public:
  // A file to append to, "-": standard output, "none": nowhere, "": the log on standard error.
  explicit AccessLog(std::string path);
  void write(const Exchange& exchange);
  void reopen();

 private:
  const std::string path_;
  std::mutex mutex_;
  Fd file_;  // guarded by mutex_
};

// "127.0.0.1 - ann [27/Nov/2026:14:00:00 +0000] "GET /v2/ HTTP/1.1" 200 2 "-" "curl" 0.001"; bytes
// that could forge a line or a field are escaped.
std::string combinedLogLine(const Exchange& exchange, std::time_t now);

}  // namespace hull::registry
