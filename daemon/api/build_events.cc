#include "daemon/api/build_events.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "daemon/api/shapes.h"

namespace hull::engine::api {

using build::BuildEvent;
using Kind = build::BuildEvent::Kind;

void ClassicBuildEvents::report(const BuildEvent& event) {
  if (event.stage < 0) return tell(event);
  if (current_ < 0) current_ = event.stage;
  if (event.stage != current_) return hold(event);
  tell(event);
  if (event.kind == Kind::kStageFinished) nextStage();
}

void ClassicBuildEvents::hold(const BuildEvent& event) {
  auto found = std::find_if(held_.begin(), held_.end(),
                            [&](const Held& held) { return held.stage == event.stage; });
  if (found == held_.end()) found = held_.insert(held_.end(), Held{event.stage, {}, 0});
  if (event.kind == Kind::kOutput) {
    if (found->output_bytes > kMaxHeldOutputBytes) return;
    found->output_bytes += event.text.size();
    if (found->output_bytes > kMaxHeldOutputBytes) {
      BuildEvent cut = event;
      cut.text = "[output clipped: more than 1 MiB]\n";
      return found->events.push_back(std::move(cut));
    }
  }
  found->events.push_back(event);
}

void ClassicBuildEvents::nextStage() {
  current_ = -1;
  while (!held_.empty()) {
    const Held next = std::move(held_.front());
    held_.pop_front();
    for (const auto& event : next.events) tell(event);
    if (next.events.back().kind == Kind::kStageFinished) continue;
    current_ = next.stage;
    return;
  }
}

void ClassicBuildEvents::finish() {
  for (const auto& held : held_) {
    for (const auto& event : held.events) tell(event);
  }
  held_.clear();
}

void ClassicBuildEvents::tell(const BuildEvent& event) {
  switch (event.kind) {
    case Kind::kStepStarted:
      return line_(event.text + "\n");
    case Kind::kStepCached:
      return line_(" ---> Using cache\n");
    case Kind::kStepFinished:
      return line_(" ---> " + event.id + "\n");
    case Kind::kOutput:
      return line_(event.text);
    case Kind::kWarning:
      return line_("[Warning] " + (event.name.empty() ? "" : event.name + ": ") + event.text +
                   (event.line > 0 ? " (line " + std::to_string(event.line) + ")" : "") + "\n");
    case Kind::kStageFinished:
    case Kind::kFinished:  // told from the image itself
      return;
  }
}

namespace {

const char* nameOf(Kind kind) {
  switch (kind) {
    case Kind::kStepStarted:
      return "started";
    case Kind::kStepCached:
      return "cached";
    case Kind::kStepFinished:
      return "finished";
    case Kind::kStageFinished:
      return "stage";
    case Kind::kOutput:
      return "output";
    case Kind::kWarning:
      return "warning";
    case Kind::kFinished:
      return "image";
  }
  return "";
}

}  // namespace

void StructuredBuildEvents::report(const BuildEvent& event) {
  Json line{{"kind", nameOf(event.kind)}, {"vertex", event.vertex}};
  if (!event.name.empty()) line["name"] = event.name;
  if (!event.text.empty() && event.kind != Kind::kStepStarted) line["text"] = event.text;
  if (!event.id.empty()) line["id"] = event.id;
  if (event.line > 0) line["line"] = event.line;
  if (event.stream == build::OutputStream::kStderr) line["error"] = true;
  stream_.line({{"hull", line}});
}

}  // namespace hull::engine::api
