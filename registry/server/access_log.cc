#include "registry/server/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

#include "base/error.h"
#include "base/log.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxLoggedBytes = 512;  // of a request's target and user agent

std::string escapedText(std::string_view text) {
  std::string result;
  for (const char c : text.substr(0, kMaxLoggedBytes)) {
    const auto value = static_cast<unsigned char>(c);
    if (value < 0x20 || value >= 0x7f || c == '"' || c == '\\') {
      char escaped[5];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", value);
      result += escaped;
    } else {
      result += c;
    }
  }
  return result.empty() ? "-" : result;
}

std::string plainLine(const Exchange& exchange) {
  const Request& request = exchange.request;
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(exchange.took);
  return request.peer + " " + request.method + " " + request.target.substr(0, kMaxLoggedBytes) +
         " " + std::to_string(exchange.response.status) +
         " in=" + std::to_string(exchange.received) + " out=" + std::to_string(exchange.sent) +
         " " + std::to_string(took.count()) + "ms" +
         (request.user.empty() ? "" : " user=" + request.user) + " \"" +
         std::string(request.header("user-agent").substr(0, kMaxLoggedBytes)) + "\"" +
         (exchange.failure.empty() ? "" : " (" + exchange.failure + ")");
}

}  // namespace

std::string combinedLogLine(const Exchange& exchange, std::time_t now) {
  const Request& request = exchange.request;
  tm utc{};
  gmtime_r(&now, &utc);
  char stamp[40];
  std::strftime(stamp, sizeof stamp, "%d/%b/%Y:%H:%M:%S +0000", &utc);
  char took[32];
  std::snprintf(took, sizeof took, "%.3f", std::chrono::duration<double>(exchange.took).count());
  std::string user = escapedText(request.user);
  for (char& c : user) c = c == ' ' ? '_' : c;
  return request.peer.substr(0, request.peer.rfind(':')) + " - " + user + " [" + stamp + "] \"" +
         escapedText(request.method) + " " + escapedText(request.target) + " HTTP/1.1\" " +
         std::to_string(exchange.response.status) + " " + std::to_string(exchange.sent) + " \"" +
         escapedText(request.header("referer")) + "\" \"" +
         escapedText(request.header("user-agent")) + "\" " + took + "\n";
}

AccessLog::AccessLog(std::string path) : path_(std::move(path)) {
  reopen();
}

void AccessLog::reopen() {
  if (path_.empty() || path_ == "-" || path_ == "none") return;
  Fd fresh = openFile(path_, O_WRONLY | O_CREAT | O_APPEND, 0640);
  const std::lock_guard lock(mutex_);
  file_ = std::move(fresh);
}

void AccessLog::write(const Exchange& exchange) {
  if (path_ == "none") return;
  if (path_.empty()) {
    log::info(plainLine(exchange));
    return;
  }
  const std::string line = combinedLogLine(exchange, std::time(nullptr));
  const std::lock_guard lock(mutex_);
  const int fd = path_ == "-" ? STDOUT_FILENO : file_.get();
  // A full disk must not end requests.
  [[maybe_unused]] const ssize_t put = ::write(fd, line.data(), line.size());
}

}  // namespace hull::registry
