// Draws a build: steps of all stages with timers and the last output of the running ones, rewritten
// in place on a terminal; numbered plain lines elsewhere ("#3 0.52 text"). Fed with the events of
// POST /build?hullevents=1. Any thread; what is drawn goes to one stream.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <thread>
#include <vector>

namespace hull::cli {

// The state of a build as its events told it. Times in seconds since the build began. One thread.
class BuildProgress {
 public:
  struct Step {
    uint64_t vertex = 0;
    std::string name;  // "[builder 2/4] RUN make"
    double began = 0;
    double ended = -1;  // −1: it runs
    bool cached = false;
    std::deque<std::string> output;  // the last lines
    std::string partial;             // a line without its end
  };
  struct Warning {
    std::string rule, text, page;
    int line = 0;
  };

  // A line of the stream: {"hull": …} or {"status": …, "id": …}. `now` as above.
  void apply(const nlohmann::json& event, double now);
  // What the plain form writes for the event applied last.
  std::vector<std::string> takeLines();
  // The build's screen: at most `rows` lines of at most `columns` cells.
  std::vector<std::string> screen(double now, size_t rows, size_t columns) const;

  const std::vector<Warning>& warnings() const { return warnings_; }
  const std::string& image() const { return image_; }
  void end(double now);  // nothing runs any more

 private:
  Step* find(uint64_t vertex);
  void addOutput(Step& step, const std::string& text, double now);
  void applyPull(const nlohmann::json& event);
  void applyContext(const nlohmann::json& event);

  std::vector<Step> steps_;
  std::map<uint64_t, size_t> by_vertex_;
  std::vector<Warning> warnings_;
  std::map<std::string, std::string> pulls_;  // layer → status
  std::string image_;
  std::string context_;  // what is said of it
  std::vector<std::string> lines_;
  bool ended_ = false;
};

class BuildDisplay {
 public:
  enum class Mode { kQuiet, kPlain, kTerminal, kRawJson };
  BuildDisplay(Mode mode, std::FILE* out);
  ~BuildDisplay();
  BuildDisplay(const BuildDisplay&) = delete;
  BuildDisplay& operator=(const BuildDisplay&) = delete;

  void event(const nlohmann::json& line);
  // The last picture, and the warnings in short.
  void finish();
  std::vector<BuildProgress::Warning> warnings();

 private:
  double now() const;
  void draw();
  void tick();

  const Mode mode_;
  std::FILE* const out_;
  const std::chrono::steady_clock::time_point begin_;
  std::mutex mutex_;  // below
  std::condition_variable changed_;
  BuildProgress progress_;
  size_t drawn_ = 0;  // lines on the terminal
  bool finished_ = false;
  std::thread ticker_;
};

// "auto", "tty", "plain", "rawjson", "quiet"; throws kInvalidArgument for another.
BuildDisplay::Mode displayMode(const std::string& progress, bool quiet, std::FILE* out);

}  // namespace hull::cli
