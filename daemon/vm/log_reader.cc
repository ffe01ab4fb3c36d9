// Reading a container's log (output_log.h): filters, the last entries, following.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "base/error.h"
#include "base/file.h"
#include "daemon/vm/log_segments.h"
#include "daemon/vm/output_log.h"
#include "daemon/vm/process_output.h"

namespace hull::engine {

namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr std::chrono::milliseconds kFollowWait{200};  // how soon cancel() and until are seen

int64_t nowNs() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct LogReader::State {
  std::string path;
  OpenLogSegment segment;
  LogQuery query;
  std::shared_ptr<ProcessOutput> live;
  uint64_t read_to = 0;   // position in the log
  uint64_t readable = 0;  // complete entries end here
  std::string buffer;
  size_t taken = 0;  // of the buffer
  std::atomic<bool> cancelled = false;
  bool ended = false;

  void openSegment();
  bool fill();
  size_t readMore();
  bool waitForMore();
  std::optional<std::string_view> nextLine();
  bool wanted(const LogEntry& entry) const;
};

LogReader::LogReader(const std::string& path, const LogQuery& query,
                     std::shared_ptr<ProcessOutput> live)
    : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->query = query;
  state_->live = std::move(live);
  const auto segments = logSegments(path);
  if (segments.size() == 1 && !fileExists(path)) {
    state_->ended = true;
    return;
  }
  state_->readable = segments.back().end();
  if (state_->live) {
    state_->readable =
        std::min(state_->readable, state_->live->waitForLog(0, std::chrono::milliseconds(0)));
  }
  if (query.end_bytes) state_->readable = std::min(state_->readable, *query.end_bytes);
  state_->read_to = segments.front().base;
  if (query.tail) state_->read_to = startOfLogTail(path, state_->readable, *query.tail);
  state_->openSegment();  // now, so that what is rotated away meanwhile can still be read
}

LogReader::~LogReader() = default;

void LogReader::cancel() {
  state_->cancelled = true;
}

std::optional<LogEntry> LogReader::next() {
  while (!state_->ended && !state_->cancelled) {
    const auto line = state_->nextLine();
    if (!line) {
      if (!state_->fill() && !state_->waitForMore()) break;
      continue;
    }
    auto entry = decodeLogEntry(*line);
    if (!entry) continue;  // not ours
    if (state_->query.until_ns && entry->time_ns > *state_->query.until_ns) break;
    if (state_->wanted(*entry)) return entry;
  }
  state_->ended = true;
  return std::nullopt;
}

bool LogReader::State::wanted(const LogEntry& entry) const {
  if (query.since_ns && entry.time_ns < *query.since_ns) return false;
  return entry.stream == OutputKind::kStdout ? query.want_stdout : query.want_stderr;
}

std::optional<std::string_view> LogReader::State::nextLine() {
  const size_t newline = buffer.find('\n', taken);
  if (newline == std::string::npos) {
    buffer.erase(0, taken);
    taken = 0;
    if (buffer.size() > kMaxLogLineBytes) buffer.clear();  // no entry of ours is that long
    return std::nullopt;
  }
  const std::string_view line = std::string_view(buffer).substr(taken, newline - taken);
  taken = newline + 1;
  return line;
}

void LogReader::State::openSegment() {
  segment = openLogAt(path, read_to);
  if (segment.base > read_to) {  // rotated away before it was read
    read_to = segment.base;
    buffer.clear();
    taken = 0;
  }
}

size_t LogReader::State::readMore() {
  if (!segment.file || segment.base > read_to || readable <= read_to) return 0;
  const size_t had = buffer.size();
  buffer.resize(had + static_cast<size_t>(std::min<uint64_t>(readable - read_to, kReadBytes)));
  const size_t got =
      preadFull(segment.file.get(), std::as_writable_bytes(std::span(buffer)).subspan(had),
                read_to - segment.base);
  buffer.resize(had + got);
  read_to += got;
  return got;
}

bool LogReader::State::fill() {
  if (readable <= read_to) return false;
  if (readMore() > 0) return true;
  openSegment();  // this file is at its end: the next one
  return readMore() > 0;
}

bool LogReader::State::waitForMore() {
  if (!query.follow || !live || query.end_bytes) return false;
  if (query.until_ns && nowNs() > *query.until_ns) return false;
  // Asked in this order: what was logged before the end is seen.
  const bool over = live->over();
  const uint64_t size = live->waitForLog(readable, kFollowWait);
  if (size < read_to) read_to = logSegments(path).back().base;  // emptied meanwhile
  if (size == readable && over) return false;
  readable = size;
  return true;
}

}  // namespace hull::engine
