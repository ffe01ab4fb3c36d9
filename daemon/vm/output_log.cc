#include "daemon/vm/output_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/vm/log_segments.h"

namespace hull::engine {

namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr size_t kStateBytes = 4 * sizeof(uint64_t);
constexpr mode_t kLogMode = 0640;

// Length of the valid UTF-8 sequence at the start of `text`, 0 when there is none.
size_t sequenceLength(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  size_t length = 0;
  uint32_t value = 0;
  if (lead < 0x80) return 1;
  if ((lead & 0xe0) == 0xc0) length = 2, value = lead & 0x1f;
  if ((lead & 0xf0) == 0xe0) length = 3, value = lead & 0x0f;
  if ((lead & 0xf8) == 0xf0) length = 4, value = lead & 0x07;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    value = value << 6 | (at(i) & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  return value < kSmallest[length] || value > 0x10ffff || surrogate ? 0 : length;
}

void appendEscaped(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  std::array<char, 8> buffer;
  std::snprintf(buffer.data(), buffer.size(), "\\u%04x", static_cast<unsigned char>(c));
  out += buffer.data();
}

// As Docker's encoder: what is no UTF-8 becomes U+FFFD; '<', '>' and '&' are escaped too.
void appendJsonString(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const size_t length = sequenceLength(text);
    const char c = text[0];
    if (length == 0) {
      out += "\\ufffd";
    } else if (length > 1) {
      out += text.substr(0, length);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f ||
               std::string_view("\"\\<>&").find(c) != std::string_view::npos) {
      appendEscaped(out, c);
    } else {
      out += c;
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  out += '"';
}

std::optional<int64_t> parseLogTime(const std::string& text) {
  tm parts{};
  int consumed = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &parts.tm_year, &parts.tm_mon,
                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &consumed) != 6) {
    return std::nullopt;
  }
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  int64_t fraction = 0, unit = kNsPerSecond;
  size_t at = static_cast<size_t>(consumed);
  if (at < text.size() && text[at] == '.') {
    for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9' && unit > 1; ++at) {
      unit /= 10;
      fraction += (text[at] - '0') * unit;
    }
  }
  if (text.substr(at) != "Z") return std::nullopt;
  return static_cast<int64_t>(timegm(&parts)) * kNsPerSecond + fraction;
}

// FNV-1a: tells a torn or foreign state file from ours; it is no defence against anybody.
uint64_t checkOf(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// Where the last whole line ends: a host that lost power may have left half of one.
uint64_t endOfLastLine(int fd, uint64_t size) {
  const uint64_t from = size > kMaxLogLineBytes ? size - kMaxLogLineBytes : 0;
  std::string tail(static_cast<size_t>(size - from), '\0');
  tail.resize(preadFull(fd, std::as_writable_bytes(std::span(tail)), from));
  const size_t newline = tail.rfind('\n');
  return newline == std::string::npos ? (from == 0 ? 0 : size) : from + newline + 1;
}

size_t indexOf(OutputKind stream) {
  return stream == OutputKind::kStdout ? 0 : 1;
}

}  // namespace

std::string formatLogTime(int64_t time_ns, bool fixed) {
  const int64_t seconds = time_ns / kNsPerSecond, fraction = time_ns % kNsPerSecond;
  const time_t clock = static_cast<time_t>(seconds);
  tm parts{};
  gmtime_r(&clock, &parts);
  std::array<char, 64> buffer;
  const size_t length = strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::string text(buffer.data(), length);
  std::snprintf(buffer.data(), buffer.size(), ".%09lld", static_cast<long long>(fraction));
  std::string digits = buffer.data();
  if (!fixed) {
    digits.erase(digits.find_last_not_of('0') + 1);
    if (digits == ".") digits.clear();
  }
  return text + digits + "Z";
}

std::string encodeLogEntry(const LogEntry& entry) {
  std::string line = R"({"log":)";
  line.reserve(entry.text.size() + 96);
  appendJsonString(line, entry.text);
  line += R"(,"stream":")";
  line += entry.stream == OutputKind::kStdout ? "stdout" : "stderr";
  line += R"(","time":")" + formatLogTime(entry.time_ns, false) + "\"}\n";
  return line;
}

std::optional<LogEntry> decodeLogEntry(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto text = [&](const char* key) -> const std::string* {
    const auto found = json.find(key);
    return found == json.end() ? nullptr : found->get_ptr<const std::string*>();
  };
  const auto *log = text("log"), *stream = text("stream"), *time = text("time");
  if (log == nullptr || stream == nullptr || time == nullptr) return std::nullopt;
  if (*stream != "stdout" && *stream != "stderr") return std::nullopt;
  const auto time_ns = parseLogTime(*time);
  if (!time_ns) return std::nullopt;
  return LogEntry{*stream == "stdout" ? OutputKind::kStdout : OutputKind::kStderr, *time_ns, *log};
}

OutputLog::OutputLog(const std::string& path, bool resume, const LogLimits& limits)
    : path_(path),
      limits_(limits),
      log_(openFile(path, O_RDWR | O_CREAT, kLogMode)),
      state_(openFile(path + ".state", O_RDWR | O_CREAT, kLogMode)),
      base_(logSegments(path).back().base) {
  size_ = endOfLastLine(log_.get(), fileSize(log_.get()));
  std::string bytes(kStateBytes, '\0');
  bytes.resize(preadFull(state_.get(), std::as_writable_bytes(std::span(bytes)), 0));
  ByteReader reader(bytes);
  const uint64_t recorded = reader.u64();
  const std::array<uint64_t, 2> consumed{reader.u64(), reader.u64()};
  const uint64_t check = reader.u64();
  if (resume && reader.ok() && check == checkOf(std::string_view(bytes).substr(0, 24))) {
    consumed_ = consumed;
    // What came after was not recorded: it comes again. (Of a log with one file, which rotation
    // empties, positions begin anew.)
    if (recorded >= base_) size_ = std::min(size_, recorded - base_);
  }
  if (ftruncate(log_.get(), static_cast<off_t>(size_)) < 0) throw sysError("cut " + path);
  recordState();
}

uint64_t OutputLog::consumed(OutputKind stream) const {
  return consumed_[indexOf(stream)];
}

// The position stays what it is, so a crash in between loses nothing and repeats nothing.
void OutputLog::rotate() {
  if (limits_.max_files <= 1) {
    if (ftruncate(log_.get(), 0) < 0) throw sysError("empty " + path_);
    base_ = size_ = 0;
    return recordState();
  }
  const std::string rotated = rotatedLogPath(path_, base_);
  if (rename(path_.c_str(), rotated.c_str()) < 0) throw sysError("rotate " + path_);
  try {
    log_ = openFile(path_, O_RDWR | O_CREAT, kLogMode);
  } catch (const Error&) {
    rename(rotated.c_str(), path_.c_str());
    throw;
  }
  base_ += size_;
  size_ = 0;
  const auto segments = logSegments(path_);
  for (size_t i = 0; i + limits_.max_files < segments.size(); ++i) {
    unlink(segments[i].path.c_str());
  }
}

void OutputLog::append(std::string_view encoded, std::array<uint64_t, 2> consumed) {
  if (limits_.discard) encoded = {};
  if (limits_.max_bytes != 0 && size_ != 0 && size_ + encoded.size() > limits_.max_bytes) rotate();
  size_ = std::min(size_, fileSize(log_.get()));  // somebody emptied it
  const uint64_t old_size = size_;
  const auto old_consumed = consumed_;
  try {
    pwriteFull(log_.get(), asBytes(encoded), size_);
    size_ += encoded.size();
    for (size_t i = 0; i < consumed_.size(); ++i) consumed_[i] += consumed[i];
    recordState();
  } catch (const Error&) {
    size_ = old_size;
    consumed_ = old_consumed;
    [[maybe_unused]] const int cut = ftruncate(log_.get(), static_cast<off_t>(size_));
    throw;
  }
}

// One small write into a block that exists: a killed engine leaves the old or the new record.
void OutputLog::recordState() {
  ByteWriter record;
  record.u64(base_ + size_);
  record.u64(consumed_[0]);
  record.u64(consumed_[1]);
  record.u64(checkOf(record.bytes()));
  pwriteFull(state_.get(), asBytes(record.bytes()), 0);
}

}  // namespace hull::engine
