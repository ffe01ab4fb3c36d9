#include "cli/terminal/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
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

}  // namespace

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
  std::string line = id + ": " + status;
  if (detail.contains("current"))
    line += " " + bar(detail.value("current", uint64_t{0}), detail.value("total", uint64_t{0}));
  rewrite(id, line);
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
