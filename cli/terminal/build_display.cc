#include "cli/terminal/build_display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr size_t kShownOutputLines = 6;  // of each running step
constexpr size_t kMaxLineBytes = 4096;   // of output; more is cut
constexpr size_t kTimerCells = 8;
constexpr size_t kDefaultRows = 24, kDefaultColumns = 80;
constexpr auto kRedrawInterval = std::chrono::milliseconds(150);

// Without what could move a terminal's cursor or colour it.
std::string printableLine(const std::string& text) {
  std::string clean;
  for (size_t i = 0; i < text.size() && clean.size() < kMaxLineBytes; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == 0x1b) {  // an escape sequence ends with a letter
      if (i + 1 < text.size() && text[i + 1] == '[') ++i;
      while (i + 1 < text.size() && !std::isalpha(static_cast<unsigned char>(text[i + 1]))) ++i;
      ++i;
    } else if (c == '\t') {
      clean += ' ';
    } else if (c >= 0x20 && c != 0x7f) {
      clean += text[i];
    }
  }
  return clean;
}

std::string oneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return printableLine(text);
}

// Cut to a number of cells; bytes of UTF-8 behind the first of a character take none.
std::string cut(const std::string& text, size_t cells) {
  size_t used = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) continue;
    if (used++ == cells) return text.substr(0, i);
  }
  return text;
}

size_t cellsOf(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xc0) != 0x80; }));
}

std::string withTimer(const std::string& text, double seconds, size_t columns) {
  const std::string timer = fmt::format("{:.1f}s", seconds);
  const size_t room = columns > kTimerCells ? columns - kTimerCells : 0;
  const std::string shown = cut(text, room);
  const size_t used = cellsOf(shown) + timer.size();
  return shown + std::string(columns > used ? columns - used : 1, ' ') + timer;
}

}  // namespace

BuildProgress::Step* BuildProgress::find(uint64_t vertex) {
  const auto found = by_vertex_.find(vertex);
  return found == by_vertex_.end() ? nullptr : &steps_[found->second];
}

void BuildProgress::applyPull(const json& event) {
  const std::string id = event.value("id", ""), status = event.value("status", "");
  if (id.empty() || status.starts_with("Pulling from")) {
    lines_.push_back(printableLine(status));
    return;
  }
  if (pulls_[id] != status) lines_.push_back(printableLine(id + ": " + status));
  pulls_[id] = status;
}

// {"sent": 12300, "bytes": 500000000, "held": 499000000, "done": true}; without "bytes" it is
// whole.
void BuildProgress::applyContext(const json& event) {
  const auto bytes = event.value("bytes", uint64_t{0}), held = event.value("held", uint64_t{0});
  context_ = "transferring context: " + humanSize(event.value("sent", 0.0));
  if (bytes > 0) context_ += " of " + humanSize(static_cast<double>(bytes));
  if (held > 0) context_ += fmt::format(" ({} unchanged)", humanSize(static_cast<double>(held)));
  if (event.value("done", false)) lines_.push_back(context_);
}

void BuildProgress::apply(const json& event, double now) {
  if (event.contains("status")) return applyPull(event);
  if (!event.contains("hull")) return;
  const json& hull = event["hull"];
  const std::string kind = hull.value("kind", ""), text = hull.value("text", "");
  if (kind == "context") return applyContext(hull);
  const uint64_t vertex = hull.value("vertex", uint64_t{0});
  if (kind == "started") {
    by_vertex_[vertex] = steps_.size();
    steps_.push_back({vertex, oneLine(hull.value("name", "")), now, -1, false, {}, {}});
    lines_.push_back(fmt::format("#{} {}", vertex, steps_.back().name));
  } else if (kind == "warning") {
    warnings_.push_back(
        {hull.value("name", ""), text, hull.value("id", ""), hull.value("line", 0)});
  } else if (kind == "image") {
    image_ = hull.value("id", "");
  }
  Step* step = find(vertex);
  if (!step) return;
  if (kind == "cached") step->cached = true;
  if (kind == "output") addOutput(*step, text, now);
  if (kind != "finished") return;
  if (!step->partial.empty()) addOutput(*step, "\n", now);
  step->ended = now;
  lines_.push_back(step->cached ? fmt::format("#{} CACHED", vertex)
                                : fmt::format("#{} DONE {:.1f}s", vertex, now - step->began));
}

void BuildProgress::addOutput(Step& step, const std::string& text, double now) {
  step.partial += text;
  for (size_t end; (end = step.partial.find('\n')) != std::string::npos;) {
    std::string line = step.partial.substr(0, end);
    step.partial.erase(0, end + 1);
    if (line.ends_with('\r')) line.pop_back();
    line = printableLine(line.substr(line.rfind('\r') + 1));  // what a terminal would show last
    lines_.push_back(fmt::format("#{} {:.3f} {}", step.vertex, now - step.began, line));
    step.output.push_back(std::move(line));
    if (step.output.size() > kShownOutputLines) step.output.pop_front();
  }
  if (step.partial.size() > kMaxLineBytes) addOutput(step, "\n", now);
}

std::vector<std::string> BuildProgress::takeLines() {
  return std::exchange(lines_, {});
}

void BuildProgress::end(double now) {
  ended_ = true;
  for (Step& step : steps_) {
    if (step.ended < 0) step.ended = now;
  }
}

std::vector<std::string> BuildProgress::screen(double now, size_t rows, size_t columns) const {
  const auto done = static_cast<size_t>(std::count_if(
      steps_.begin(), steps_.end(), [](const Step& step) { return step.ended >= 0; }));
  std::vector<std::string> lines = {
      withTimer(fmt::format("[+] Building {}/{}{}", done, steps_.size(), ended_ ? " FINISHED" : ""),
                now, columns)};
  if (!context_.empty()) lines.push_back(cut(" => " + context_, columns));
  const auto pulling =
      static_cast<size_t>(std::count_if(pulls_.begin(), pulls_.end(), [](const auto& layer) {
        return layer.second != "Pull complete" && layer.second != "Already exists";
      }));
  if (pulling > 0)
    lines.push_back(cut(
        fmt::format(" => pulling layers {}/{}", pulls_.size() - pulling, pulls_.size()), columns));
  // The steps that run have their lines whatever came before; of the others the latest stay.
  size_t running_lines = 0;
  for (const Step& step : steps_) running_lines += step.ended < 0 ? 1 + step.output.size() : 0;
  const size_t room = rows > lines.size() + running_lines ? rows - lines.size() - running_lines : 0;
  size_t hidden = done > room ? done - room : 0;
  for (const Step& step : steps_) {
    if (step.ended >= 0) {
      if (hidden > 0) {
        --hidden;
        continue;
      }
      lines.push_back(withTimer(fmt::format(" => {}{}", step.cached ? "CACHED " : "", step.name),
                                step.ended - step.began, columns));
      continue;
    }
    lines.push_back(withTimer(" => " + step.name, now - step.began, columns));
    for (const auto& line : step.output) lines.push_back(cut(" => => # " + line, columns));
  }
  if (lines.size() > rows && rows > 0) lines.resize(rows);
  return lines;
}

BuildDisplay::BuildDisplay(Mode mode, std::FILE* out)
    : mode_(mode), out_(out), begin_(std::chrono::steady_clock::now()) {
  if (mode_ == Mode::kTerminal) ticker_ = std::thread([this] { tick(); });
}

BuildDisplay::~BuildDisplay() {
  finish();
}

double BuildDisplay::now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void BuildDisplay::event(const json& line) {
  const std::lock_guard lock(mutex_);
  if (mode_ == Mode::kRawJson) {
    fmt::print(out_, "{}\n", line.dump(-1, ' ', false, json::error_handler_t::replace));
    std::fflush(out_);
  }
  progress_.apply(line, now());
  const auto lines = progress_.takeLines();
  if (mode_ != Mode::kPlain) return;
  for (const auto& text : lines) fmt::print(out_, "{}\n", text);
  std::fflush(out_);
}

std::vector<BuildProgress::Warning> BuildDisplay::warnings() {
  const std::lock_guard lock(mutex_);
  return progress_.warnings();
}

void BuildDisplay::tick() {
  std::unique_lock lock(mutex_);
  while (!finished_) {
    draw();
    changed_.wait_for(lock, kRedrawInterval);
  }
}

void BuildDisplay::draw() {
  winsize size{};
  ioctl(fileno(out_), TIOCGWINSZ, &size);
  const size_t rows = size.ws_row > 2 ? size.ws_row - 1U : kDefaultRows;
  const size_t columns = size.ws_col > 0 ? size.ws_col : kDefaultColumns;
  std::string picture;
  if (drawn_ > 0) picture += fmt::format("\x1b[{}A", drawn_);
  const auto lines = progress_.screen(now(), rows, columns);
  for (const auto& line : lines) picture += "\r\x1b[2K" + line + "\n";
  picture += "\x1b[J";  // what a longer picture left
  drawn_ = lines.size();
  fmt::print(out_, "{}", picture);
  std::fflush(out_);
}

void BuildDisplay::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    progress_.end(now());
    if (mode_ == Mode::kTerminal) draw();
  }
  changed_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

BuildDisplay::Mode displayMode(const std::string& progress, bool quiet, std::FILE* out) {
  using Mode = BuildDisplay::Mode;
  if (quiet || progress == "quiet") return Mode::kQuiet;
  if (progress == "plain") return Mode::kPlain;
  if (progress == "tty") return Mode::kTerminal;
  if (progress == "rawjson") return Mode::kRawJson;
  if (!progress.empty() && progress != "auto") {
    throw Error(ErrorKind::kInvalidArgument,
                "--progress=" + progress + ": auto, tty, plain, quiet or rawjson");
  }
  const char* terminal = std::getenv("TERM");
  const bool able = terminal != nullptr && std::string_view(terminal) != "dumb";
  return able && isatty(fileno(out)) != 0 ? Mode::kTerminal : Mode::kPlain;
}

}  // namespace hull::cli
