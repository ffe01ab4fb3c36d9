#include "daemon/vm/log_segments.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine {

namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kBaseDigits = 20;  // of any uint64_t
constexpr int kOpenAttempts = 8;    // against a rotation between looking and opening

uint64_t sizeOf(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

bool parseBase(std::string_view text, uint64_t& base) {
  if (text.size() != kBaseDigits) return false;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), base);
  return failed == std::errc() && end == text.data() + text.size();
}

// Counts newlines of one file from its end on; the position behind the wanted one, if it is here.
bool tailStartsIn(const LogSegment& segment, uint64_t end, uint64_t last, uint64_t& count,
                  uint64_t& start) {
  const Fd file(open(segment.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return false;
  std::string block;
  for (uint64_t at = end - segment.base; at > 0;) {
    const uint64_t from = at > kReadBytes ? at - kReadBytes : 0;
    block.resize(static_cast<size_t>(at - from));
    preadFull(file.get(), std::as_writable_bytes(std::span(block)), from);
    for (size_t i = block.size(); i-- > 0;) {
      const uint64_t behind = segment.base + from + i + 1;
      // The newline that ends the last line is not one before it.
      if (block[i] != '\n' || behind == last) continue;
      if (--count == 0) {
        start = behind;
        return true;
      }
    }
    at = from;
  }
  return false;
}

}  // namespace

std::string rotatedLogPath(const std::string& log_path, uint64_t base) {
  const std::string digits = std::to_string(base);
  return log_path + "." + std::string(kBaseDigits - digits.size(), '0') + digits;
}

std::vector<LogSegment> logSegments(const std::string& log_path) {
  std::vector<LogSegment> segments;
  const std::filesystem::path path(log_path);
  const std::string prefix = path.filename().string() + ".";
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path(), failed)) {
    const std::string name = entry.path().filename().string();
    LogSegment segment{entry.path().string(), 0, 0};
    if (!name.starts_with(prefix) ||
        !parseBase(std::string_view(name).substr(prefix.size()), segment.base)) {
      continue;
    }
    segment.size = sizeOf(segment.path);
    segments.push_back(std::move(segment));
  }
  std::sort(segments.begin(), segments.end(),
            [](const LogSegment& a, const LogSegment& b) { return a.base < b.base; });
  const uint64_t base = segments.empty() ? 0 : segments.back().end();
  segments.push_back({log_path, base, sizeOf(log_path)});
  return segments;
}

uint64_t logDiskBytes(const std::string& log_path) {
  uint64_t bytes = 0;
  for (const LogSegment& segment : logSegments(log_path)) bytes += segment.size;
  return bytes;
}

void removeLog(const std::string& log_path) {
  std::error_code ignored;
  for (const LogSegment& segment : logSegments(log_path)) {
    std::filesystem::remove(segment.path, ignored);
  }
  std::filesystem::remove(log_path + ".state", ignored);
}

OpenLogSegment openLogAt(const std::string& log_path, uint64_t position) {
  for (int attempt = 0; attempt < kOpenAttempts; ++attempt) {
    const auto segments = logSegments(log_path);
    auto wanted = std::find_if(segments.begin(), segments.end(),
                               [&](const LogSegment& s) { return position < s.end(); });
    if (wanted == segments.end()) --wanted;
    OpenLogSegment opened{Fd(open(wanted->path.c_str(), O_RDONLY | O_CLOEXEC)), wanted->base};
    if (!opened.file && errno != ENOENT) throw sysError("open " + wanted->path);
    if (wanted->path != log_path) {
      if (opened.file) return opened;
      continue;  // it was the oldest and has just been removed
    }
    // What the name means is certain only when nothing was rotated meanwhile.
    if (logSegments(log_path).back().base == wanted->base) return opened;
  }
  throw Error(ErrorKind::kUnavailable, "read " + log_path + ": it is rotated all the time");
}

uint64_t startOfLogTail(const std::string& log_path, uint64_t end, uint64_t count) {
  if (count == 0) return end;
  const auto segments = logSegments(log_path);
  for (auto it = segments.rbegin(); it != segments.rend(); ++it) {
    const uint64_t segment_end = std::min(it->end(), end);
    uint64_t start = 0;
    if (segment_end > it->base && tailStartsIn(*it, segment_end, end, count, start)) return start;
  }
  return segments.front().base;
}

}  // namespace hull::engine
