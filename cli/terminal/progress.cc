#include "cli/terminal/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr int kBarCells = 30;

std::string bar(uint64_t current, uint64_t total) {
  if (total == 0) return humanSize(static_cast<double>(current));
  const auto done = static_cast<int>(std::min(current, total) * kBarCells / total);
  return fmt::format(
      "[{}{}{}] {}/{}", std::string(static_cast<size_t>(done), '='), done < kBarCells ? ">" : "",
      std::string(static_cast<size_t>(std::max(0, kBarCells - done - 1)), ' '),
      humanSize(static_cast<double>(current)), humanSize(static_cast<double>(total)));
}

constexpr double kFirstRateSeconds = 1;
constexpr int kMinute = 60, kHour = 3600, kMaxHours = 100;

std::string timeLeft(double seconds) {
  if (seconds >= kMaxHours * kHour) return "";
  const int all = static_cast<int>(seconds) + 1;
  if (all < kMinute) return fmt::format(", {}s left", all);
  if (all < kHour) return fmt::format(", {}m{:02}s left", all / kMinute, all % kMinute);
  return fmt::format(", {}h{:02}m left", all / kHour, all % kHour / kMinute);
}

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string TransferProgress::line(const std::string& status, uint64_t current, uint64_t total,
                                   double now) {
  if (status != status_ || current < began_at_) {
    status_ = status;
    began_at_ = current;
    began_ = now;
  }
  std::string line = status + " " + bar(current, total);
  const double rate = now - began_ < kFirstRateSeconds
                          ? 0
                          : static_cast<double>(current - began_at_) / (now - began_);
  if (rate <= 0) return line;
  line += fmt::format(" {}/s", humanSize(rate));
  if (total > current) line += timeLeft(static_cast<double>(total - current) / rate);
  return line;
}

ProgressDisplay::ProgressDisplay(std::FILE* out) : out_(out), terminal_(isatty(fileno(out)) != 0) {}

void ProgressDisplay::show(const json& event) {
  const std::string status = event.value("status", ""), id = event.value("id", "");
  if (status.empty()) return;
  if (id.empty()) {
    fmt::print(out_, "{}\n", status);
    order_.clear();  // a later layer line must not jump above this one
    std::fflush(out_);
    return;
  }
  if (!terminal_) {
    if (statuses_[id] != status) fmt::print(out_, "{}: {}\n", id, status);
    statuses_[id] = status;
    std::fflush(out_);
    return;
  }
  const json detail = event.value("progressDetail", json::object());
  std::string line = status;
  if (detail.contains("current")) {
    line = transfers_[id].line(status, detail.value("current", uint64_t{0}),
                               detail.value("total", uint64_t{0}), secondsNow());
  }
  rewrite(id, id + ": " + line);
}

void ProgressDisplay::rewrite(const std::string& id, const std::string& line) {
  const auto found = std::find(order_.begin(), order_.end(), id);
  if (found == order_.end()) {
    order_.push_back(id);
    fmt::print(out_, "{}\n", line);
  } else {
    const auto up = order_.end() - found;
    fmt::print(out_, "\x1b[{}A\r\x1b[2K{}\x1b[{}B\r", up, line, up);
  }
  std::fflush(out_);
}

}  // namespace hull::cli
