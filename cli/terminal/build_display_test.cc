#include "cli/terminal/build_display.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::cli {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

json event(const std::string& kind, int vertex, json more = json::object()) {
  more["kind"] = kind;
  more["vertex"] = vertex;
  return {{"hull", more}};
}

TEST(BuildProgress, PlainLinesAreNumberedAndTimed) {
  BuildProgress progress;
  progress.apply(event("started", 1, {{"name", "[a 1/2] FROM scratch"}}), 0);
  progress.apply(event("finished", 1), 0.04);
  progress.apply(event("started", 2, {{"name", "[a 2/2] RUN make\nall"}}), 1);
  progress.apply(event("output", 2, {{"text", "one\ntw"}}), 1.5);
  progress.apply(event("output", 2, {{"text", "o\r\nx\rprogress\n\x1b[31mred\x1b[0m\nend"}}), 1.75);
  progress.apply(event("finished", 2), 3);
  progress.apply(event("started", 3, {{"name", "[a 3/3] COPY a /a"}}), 3);
  progress.apply(event("cached", 3), 3);
  progress.apply(event("finished", 3), 3);
  EXPECT_THAT(progress.takeLines(),
              ElementsAre("#1 [a 1/2] FROM scratch", "#1 DONE 0.0s", "#2 [a 2/2] RUN make all",
                          "#2 0.500 one", "#2 0.750 two", "#2 0.750 progress", "#2 0.750 red",
                          "#2 2.000 end", "#2 DONE 2.0s", "#3 [a 3/3] COPY a /a", "#3 CACHED"));
}

TEST(BuildProgress, SaysHowMuchOfTheContextTravels) {
  const auto context = [](uint64_t sent, bool done, json more = json::object()) {
    more["kind"] = "context";
    more["sent"] = sent;
    more["done"] = done;
    return json{{"hull", more}};
  };
  BuildProgress progress;
  progress.apply(context(2'000'000, false), 0);
  EXPECT_TRUE(progress.takeLines().empty());
  EXPECT_EQ(progress.screen(1, 24, 80).at(1), " => transferring context: 2MB");
  progress.apply(context(12'300, true, {{"bytes", 500'000'000}, {"held", 499'000'000}}), 1);
  EXPECT_THAT(progress.takeLines(),
              ElementsAre("transferring context: 12.3kB of 500MB (499MB unchanged)"));
}

TEST(BuildProgress, TheScreenShowsRunningStepsOfAllStagesWithTheirLastOutput) {
  BuildProgress progress;
  progress.apply(event("started", 1, {{"name", "[a 2/2] RUN one"}}), 0);
  progress.apply(event("started", 2, {{"name", "[b 2/2] RUN two"}}), 1);
  for (int i = 0; i < 20; ++i)
    progress.apply(event("output", 2, {{"text", "line " + std::to_string(i) + "\n"}}), 2);
  const auto screen = progress.screen(5, 24, 40);
  ASSERT_EQ(screen.size(), 9u);
  EXPECT_THAT(screen[0], StartsWith("[+] Building 0/2"));
  EXPECT_EQ(screen[1], " => [a 2/2] RUN one                 5.0s");
  EXPECT_EQ(screen[2], " => [b 2/2] RUN two                 4.0s");
  EXPECT_EQ(screen[8], " => => # line 19");
}

TEST(BuildProgress, TheScreenFitsAnyTerminal) {
  BuildProgress progress;
  for (int i = 1; i <= 50; ++i) {
    progress.apply(event("started", i, {{"name", std::string(200, 'x')}}), i);
    if (i < 50) progress.apply(event("finished", i), i + 1);
  }
  const auto screen = progress.screen(60, 10, 30);
  EXPECT_EQ(screen.size(), 10u);
  for (const auto& line : screen) EXPECT_LE(line.size(), 30u);
  EXPECT_THAT(screen.back(), HasSubstr("10.0s"));  // the one that runs
  EXPECT_FALSE(progress.screen(60, 1, 3).empty());
}

TEST(BuildProgress, WarningsAndTheImageAreKept) {
  BuildProgress progress;
  progress.apply(event("warning", 0, {{"name", "StageNameCasing"}, {"text", "t"}, {"line", 3}}), 0);
  progress.apply(event("image", 0, {{"id", "sha256:1"}}), 0);
  ASSERT_EQ(progress.warnings().size(), 1u);
  EXPECT_EQ(progress.warnings()[0].line, 3);
  EXPECT_EQ(progress.image(), "sha256:1");
}

TEST(BuildDisplay, ModesAreNamed) {
  EXPECT_EQ(displayMode("plain", false, stderr), BuildDisplay::Mode::kPlain);
  EXPECT_EQ(displayMode("tty", true, stderr), BuildDisplay::Mode::kQuiet);
  EXPECT_THROW(displayMode("fancy", false, stderr), Error);
}

}  // namespace
}  // namespace hull::cli
