// A container's log on disk in Docker's json-file format: one JSON object per line,
// {"log":"text\n","stream":"stdout","time":"RFC3339 with nanoseconds"}; a line longer than
// kMaxLogTextBytes is split, and every part but the last has no "\n", as Docker does it.
//
// Beside the log lies "<log>.state": how many bytes of each of the process's streams the log holds,
// and how long the log was then (a position over all its files, log_segments.h). The guest keeps
// what was not acknowledged, and acknowledged is only what both files hold. So after a crash the
// log is cut back to the recorded length and the streams go on from the recorded totals: no byte is
// lost, none appears twice.
//
// OutputLog is owned by one ProcessOutput and used by its pump thread. LogReader is independent of
// it (a stopped container's log can be read too) and is used by one thread; cancel() by any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace hull::engine {

class ProcessOutput;

// How much of a log is kept. A file is rotated before what would make it longer than `max_bytes` is
// appended; what one turn of the pump brought is never torn apart, so a file can
// be that much longer.
struct LogLimits {
  uint64_t max_bytes = 0;  // of one file; 0: no bound
  uint32_t max_files = 1;  // the current one and the rotated ones; 1: it is emptied
  bool discard = false;    // nothing is kept (log driver "none")
};

inline constexpr size_t kMaxLogTextBytes = 16 * 1024;      // of one log entry, as Docker splits
inline constexpr size_t kMaxLogLineBytes = 8 * 16 * 1024;  // encoded; longer ones are not ours

enum class OutputKind : uint8_t { kStdout = 1, kStderr = 2 };  // the numbers of Docker's framing

struct LogEntry {
  OutputKind stream = OutputKind::kStdout;
  int64_t time_ns = 0;  // since 1970, UTC
  std::string text;     // with its "\n", unless it is a part of a longer line or the very end

  bool operator==(const LogEntry&) const = default;
};

std::string encodeLogEntry(const LogEntry& entry);  // with the final newline
std::optional<LogEntry> decodeLogEntry(std::string_view line);
// RFC 3339. `fixed` always prints nine digits of the second, as `docker logs --timestamps` does;
// otherwise trailing zeros are left out, as in the log.
std::string formatLogTime(int64_t time_ns, bool fixed);

class OutputLog {
 public:
  // `resume`: the process was started by an earlier engine process, go on where its log ends.
  // Otherwise a new process begins: totals are zero, what the log holds already stays.
  OutputLog(const std::string& path, bool resume, const LogLimits& limits = {});

  uint64_t consumed(OutputKind stream) const;  // bytes of this process's stream the log holds
  // The position behind its last entry (log_segments.h); readers may read up to here.
  uint64_t bytes() const { return base_ + size_; }

  // Appends encoded entries that hold `consumed` more bytes of each stream (stdout, stderr), and
  // then records it. On failure (disk full) nothing was appended and it can be tried again.
  void append(std::string_view encoded, std::array<uint64_t, 2> consumed);

 private:
  void rotate();
  void recordState();

  const std::string path_;
  const LogLimits limits_;
  Fd log_;
  Fd state_;
  uint64_t base_ = 0;  // position of the current file's first byte
  uint64_t size_ = 0;  // of the current file
  std::array<uint64_t, 2> consumed_{};
};

struct LogQuery {
  bool want_stdout = true;
  bool want_stderr = true;
  std::optional<int64_t> since_ns = {};    // entries at or after
  std::optional<int64_t> until_ns = {};    // entries up to; ends a follow as well
  std::optional<uint64_t> tail = {};       // the last entries of the log, before the other filters
  bool follow = false;                     // wait for more until the process's output has ended
  std::optional<uint64_t> end_bytes = {};  // only up to here (OutputSubscription::logBytes)
};

class LogReader {
 public:
  // `live` is the running process's output, needed to follow; may be null. A missing log is empty.
  LogReader(const std::string& path, const LogQuery& query, std::shared_ptr<ProcessOutput> live);
  ~LogReader();

  std::optional<LogEntry> next();  // nullopt at the end, or once cancelled
  void cancel();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::engine
