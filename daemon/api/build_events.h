// What a build reports, as lines of POST /build: the classic builder's text, where stages that run
// in parallel are told one after the other, or every event as it comes ("hullevents=1", for a
// client that draws them). Called by the builder, one event at a time.
#pragma once

#include <deque>
#include <map>

#include "daemon/api/json_stream.h"
#include "daemon/engine/engine.h"
#include "image/build/builder.h"

namespace hull::engine::api {

// Of a stage whose turn has not come; what it says beyond that is cut.
inline constexpr size_t kMaxHeldOutputBytes = 1 << 20;

class BuildEvents {
 public:
  virtual ~BuildEvents() = default;
  virtual void report(const build::BuildEvent& event) = 0;
  virtual void finish() {}  // no event follows
};

class ClassicBuildEvents final : public BuildEvents {
 public:
  using Line = std::function<void(const std::string& text)>;
  explicit ClassicBuildEvents(Line line) : line_(std::move(line)) {}
  void report(const build::BuildEvent& event) override;
  void finish() override;

 private:
  void hold(const build::BuildEvent& event);
  void tell(const build::BuildEvent& event);
  void nextStage();

  struct Held {
    int stage = 0;
    std::deque<build::BuildEvent> events;
    size_t output_bytes = 0;
  };
  Line line_;
  int current_ = -1;
  std::deque<Held> held_;  // in order of their first event
};

// {"hull": {"kind": "started", "vertex": 3, "name": "[2/4] RUN make", …}}
class StructuredBuildEvents final : public BuildEvents {
 public:
  explicit StructuredBuildEvents(JsonStream& stream) : stream_(stream) {}
  void report(const build::BuildEvent& event) override;

 private:
  JsonStream& stream_;
};

// "BuildCache" of /system/df: layers of cached steps, and cache mounts.
nlohmann::json buildCacheUsage(Engine& engine);

}  // namespace hull::engine::api
