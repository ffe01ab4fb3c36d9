#include "daemon/engine/spec_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/testing/refusal.h"
#include "daemon/engine/health.h"

namespace hull::engine {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HealthSpec health(const char* text) {
  return readHealth({{"Healthcheck", json::parse(text)}});
}
LogSpec logOf(const char* text) {
  return readLog({{"LogConfig", json::parse(text)}});
}

TEST(HealthSpecTest, CommandsAndDefaultsAreDockers) {
  EXPECT_THAT(readHealth(json::object()).command, IsEmpty());
  EXPECT_THAT(health(R"({"Test":["NONE"]})").command, IsEmpty());
  EXPECT_THAT(health(R"({"Test":["CMD","a","b"]})").command, ElementsAre("a", "b"));
  EXPECT_THAT(health(R"({"Test":["CMD-SHELL","a b"]})").command,
              ElementsAre("/bin/sh", "-c", "a b"));
  EXPECT_THAT(readHealth(json::parse(R"({"Shell":["/bin/bash","-ec"],
                                         "Healthcheck":{"Test":["CMD-SHELL","x"]}})"))
                  .command,
              ElementsAre("/bin/bash", "-ec", "x"));
  const HealthSpec spec = health(R"({"Test":["CMD","a"],"Interval":2000000000})");
  EXPECT_EQ(spec.interval, seconds(2));
  EXPECT_EQ(spec.timeout, seconds(30));
  EXPECT_EQ(spec.start_interval, seconds(5));
  EXPECT_EQ(spec.retries, 3);
}

TEST(HealthSpecTest, NonsenseIsRefusedByName) {
  EXPECT_THAT(refusal([] { health(R"({"Test":["PING"]})"); }), HasSubstr("'PING'"));
  EXPECT_THAT(refusal([] { health(R"({"Test":["CMD"]})"); }), HasSubstr("no command"));
  EXPECT_THAT(refusal([] { health(R"({"Test":["CMD","x"],"Timeout":5})"); }),
              HasSubstr("Timeout in Healthcheck cannot be less than 1ms"));
  EXPECT_THAT(refusal([] { health(R"({"Test":["CMD","x"],"Retries":-1})"); }),
              HasSubstr("cannot be negative"));
  refusal([] { health(R"([1])"); });
  refusal([] { health(R"({"Test":{"a":1}})"); });
}

HealthProbe probeAt(int64_t start_s, int exit_code) {
  return {start_s * 1'000'000'000, start_s * 1'000'000'000, exit_code, "out"};
}

TEST(HealthStateTest, UnhealthyAfterItsRetriesAndHealthyAtOnce) {
  HealthSpec spec;
  spec.retries = 2;
  HealthState state{HealthStatus::kStarting, 0, {}};
  state = afterProbe(state, probeAt(1, 1), spec, 0);
  EXPECT_EQ(state.status, HealthStatus::kStarting);
  EXPECT_EQ(state.failing_streak, 1);
  state = afterProbe(state, probeAt(2, kProbeTimedOut), spec, 0);
  EXPECT_EQ(state.status, HealthStatus::kUnhealthy);
  state = afterProbe(state, probeAt(3, 0), spec, 0);
  EXPECT_EQ(state.status, HealthStatus::kHealthy);
  EXPECT_EQ(state.failing_streak, 0);
  for (int i = 4; i < 20; ++i) state = afterProbe(state, probeAt(i, 0), spec, 0);
  EXPECT_EQ(state.probes.size(), kMaxHealthProbes);
  EXPECT_EQ(state.probes.back().start_ns, 19'000'000'000);
}

TEST(HealthStateTest, FailuresOfTheStartPeriodDoNotCount) {
  HealthSpec spec;
  spec.retries = 1;
  spec.start_period = seconds(10);
  HealthState state{HealthStatus::kStarting, 0, {}};
  state = afterProbe(state, probeAt(9, 1), spec, 0);
  EXPECT_EQ(state.status, HealthStatus::kStarting);
  EXPECT_EQ(state.failing_streak, 0);
  EXPECT_EQ(probeDelay(state, spec, 0, 9'000'000'000), seconds(5));
  EXPECT_EQ(probeDelay(state, spec, 0, 10'000'000'000), seconds(30));
  // Once healthy, its start is over.
  state = afterProbe(state, probeAt(9, 0), spec, 0);
  state = afterProbe(state, probeAt(9, 1), spec, 0);
  EXPECT_EQ(state.status, HealthStatus::kUnhealthy);
}

TEST(LogSpecTest, DriversAndTheirLimits) {
  EXPECT_EQ(readLog(json::object()).max_bytes, 0u);
  const LogSpec spec = logOf(
      R"({"Type":"json-file","Config":{"max-size":"10m","max-file":"3","tag":"x","labels":"a"}})");
  EXPECT_EQ(spec.max_bytes, 10u << 20);
  EXPECT_EQ(spec.max_files, 3u);
  EXPECT_EQ(logOf(R"({"Type":"local"})").max_files, 5u);
  EXPECT_EQ(logOf(R"({"Type":"local"})").max_bytes, 20u << 20);
  EXPECT_EQ(logOf(R"({"Type":"none"})").driver, LogDriver::kNone);
  EXPECT_EQ(logOf(R"({"Type":"json-file","Config":{"max-size":"1.5kb"}})").max_bytes, 1536u);
}

TEST(LogSpecTest, WhatCannotBeIsRefusedByName) {
  EXPECT_THAT(refusal(ErrorKind::kNotSupported, [] { logOf(R"({"Type":"syslog"})"); }),
              HasSubstr("no log driver named 'syslog'"));
  EXPECT_THAT(refusal([] { logOf(R"({"Type":"json-file","Config":{"nonsense":"1"}})"); }),
              HasSubstr("unknown log opt 'nonsense' for json-file log driver"));
  for (const char* size : {"", "m", "-1m", "1x", "10mm", "1e300", "nan", "inf"}) {
    EXPECT_THAT(refusal([&] {
                  readLog({{"LogConfig", {{"Type", "local"}, {"Config", {{"max-size", size}}}}}});
                }),
                HasSubstr("max-size"))
        << size;
  }
  for (const char* files : {"0", "-1", "1.5", "99999999999999999999", "x"}) {
    EXPECT_THAT(refusal([&] {
                  readLog({{"LogConfig", {{"Type", "local"}, {"Config", {{"max-file", files}}}}}});
                }),
                HasSubstr("max-file"))
        << files;
  }
  EXPECT_THAT(refusal([] { logOf(R"({"Type":"json-file","Config":{"max-file":"3"}})"); }),
              HasSubstr("needs max-size"));
}

}  // namespace
}  // namespace hull::engine
