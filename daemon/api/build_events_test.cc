#include "daemon/api/build_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hull::engine::api {
namespace {

using build::BuildEvent;
using Kind = build::BuildEvent::Kind;

BuildEvent event(Kind kind, int stage, const std::string& text) {
  BuildEvent made{kind, text};
  made.stage = stage;
  return made;
}

TEST(ClassicBuildEvents, ParallelStagesAreToldOneAfterTheOther) {
  std::string out;
  ClassicBuildEvents events([&](const std::string& text) { out += text; });
  events.report(event(Kind::kStepStarted, 1, "one"));
  events.report(event(Kind::kStepStarted, 0, "zero"));
  events.report(event(Kind::kOutput, 0, "z\n"));
  events.report(event(Kind::kOutput, 1, "o\n"));
  events.report(event(Kind::kStageFinished, 0, ""));
  events.report(event(Kind::kStepStarted, 2, "two"));
  EXPECT_EQ(out, "one\no\n");
  events.report(event(Kind::kStageFinished, 1, ""));
  EXPECT_EQ(out, "one\no\nzero\nz\ntwo\n");
  events.report(event(Kind::kOutput, 2, "live\n"));
  EXPECT_EQ(out, "one\no\nzero\nz\ntwo\nlive\n");
}

TEST(ClassicBuildEvents, WhatIsHeldIsBoundedAndToldAtTheEnd) {
  std::string out;
  ClassicBuildEvents events([&](const std::string& text) { out += text; });
  events.report(event(Kind::kStepStarted, 0, "zero"));
  for (int i = 0; i < 100; ++i) events.report(event(Kind::kOutput, 1, std::string(64 * 1024, 'x')));
  events.finish();
  EXPECT_LE(out.size(), kMaxHeldOutputBytes + 1024);
  EXPECT_THAT(out, ::testing::HasSubstr("output clipped"));
}

}  // namespace
}  // namespace hull::engine::api
