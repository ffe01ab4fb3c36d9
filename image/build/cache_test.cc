// What the cache of steps finds, what it keeps, and stages and builds at the same time.
#include <unistd.h>

#include <condition_variable>
#include <ctime>
#include <future>

#include "image/build/cache.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::HasSubstr;
using BuildCacheTest = testing::BuilderTest;

TEST_F(BuildCacheTest, KeysOfCopiesHoldContentAndModeAndNoTimes) {
  const auto key = [&](const std::string& text, const std::string& flags) {
    build("FROM scratch\nCOPY " + flags + " f /f\n", {{"f", text}});
    return cachedSteps();
  };
  EXPECT_EQ(key("1", ""), 0);
  EXPECT_EQ(key("1", ""), 1);  // every context has later times
  EXPECT_EQ(key("2", ""), 0);
  EXPECT_EQ(key("1", "--chmod=600"), 0);
  EXPECT_EQ(key("1", "--chown=5"), 0);
  EXPECT_EQ(key("1", "--chmod=600"), 1);
}

TEST_F(BuildCacheTest, KeysOfRunsHoldWhatTheCommandCanSee) {
  const auto runs = [&](const std::string& lines) {
    const size_t before = runner_.ran.size();
    build("FROM scratch\n" + lines + "RUN x\n");
    return runner_.ran.size() - before;
  };
  EXPECT_EQ(runs(""), 1u);
  EXPECT_EQ(runs(""), 0u);
  EXPECT_EQ(runs("ENV A=1\n"), 1u);
  EXPECT_EQ(runs("USER 5\n"), 1u);
  EXPECT_EQ(runs("WORKDIR /w\n"), 1u);
  EXPECT_EQ(runs("SHELL [\"/bin/bash\", \"-c\"]\n"), 1u);
  request_.network = false;
  EXPECT_EQ(runs(""), 1u);
}

TEST_F(BuildCacheTest, ReproducibleBuildsGiveTheSameDigests) {
  request_.build_args = {{"SOURCE_DATE_EPOCH", "86400"}};
  const std::string dockerfile = "FROM scratch\nWORKDIR /w\nCOPY f /f\nRUN x\n";
  const auto first = build(dockerfile, {{"f", "F"}});
  request_.no_cache = true;
  runner_.ran.clear();
  const auto second = build(dockerfile, {{"f", "F"}});  // with other times
  EXPECT_EQ(first.id, second.id);
  EXPECT_EQ(first.manifest, second.manifest);
  EXPECT_EQ(inodeOf(first, "f").mtime_seconds, 86400);
  EXPECT_EQ(first.config.history.back().created, "1970-01-02T00:00:00Z");
}

TEST_F(BuildCacheTest, TheCacheSurvivesCollectionsAndGoesWhenPruned) {
  const auto cache = BuildCache::open(store_);
  const auto image = build("FROM scratch\nRUN x\n");
  store_.remove(image.id.text(), true, [](const image::Digest&) { return false; });
  store_.collectGarbage();
  build("FROM scratch\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 1u);
  const auto records = cache->list();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].description, "RUN /bin/sh -c x # buildkit");
  EXPECT_GT(records[0].bytes, 0u);
  EXPECT_EQ(records[0].uses, 1);
  EXPECT_EQ(cache->prune({0, 0}).size(), 0u);  // nothing was used before 1970
  EXPECT_EQ(cache->prune({}).size(), 1u);
  build("FROM scratch\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 2u);
}

TEST_F(BuildCacheTest, TheCacheKeepsToItsLimitAndDropsTheLeastRecentlyUsed) {
  const auto cache = BuildCache::open(store_);
  build("FROM scratch\nRUN first\n");
  const uint64_t one = cache->list().at(0).bytes;
  cache->setLimit(one + one / 2);
  // Uses are recorded in whole seconds: the second step is used later than the first.
  for (const time_t first = time(nullptr); time(nullptr) == first;) usleep(20'000);
  build("FROM scratch\nRUN second\n");
  ASSERT_EQ(cache->list().size(), 1u);
  EXPECT_THAT(cache->list()[0].description, HasSubstr("second"));
}

TEST_F(BuildCacheTest, ParallelBuildsMakeASharedStepOnce) {
  std::mutex mutex;
  std::condition_variable changed;
  bool running = false, go = false;
  runner_.on_run = [&](const RunStep&) {
    std::unique_lock lock(mutex);
    running = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go; });
  };
  const std::string tar = contextTar({{"Dockerfile", "FROM scratch\nRUN x\n"}});
  const auto run = [&] {
    StringSource context(tar);
    return buildImage(store_, runner_, context, request_, {}).id;
  };
  auto first = std::async(std::launch::async, run);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return running; });
  }
  auto second = std::async(std::launch::async, run);
  {
    const std::lock_guard lock(mutex);
    go = true;
  }
  changed.notify_all();
  EXPECT_EQ(first.get(), second.get());
  EXPECT_EQ(runner_.ran.size(), 1u);
}

TEST_F(BuildCacheTest, IndependentStagesRunAtTheSameTime) {
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  runner_.on_run = [&](const RunStep&) {  // each waits for the other
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return waiting == 2; }));
  };
  build(
      "FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY --from=a / /a\nCOPY "
      "--from=b / /b\n");
  EXPECT_EQ(runner_.ran.size(), 2u);
}

TEST_F(BuildCacheTest, AStageThatFailsEndsTheOthers) {
  runner_.exit_code = 1;
  EXPECT_THAT(failure("FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY "
                      "--from=a / /a\nCOPY --from=b / /b\n"),
              HasSubstr("non-zero code: 1"));
}

}  // namespace
}  // namespace hull::build
