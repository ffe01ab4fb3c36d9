// Caches that travel: exported from one store, used in another.
#include "image/build/cache_transfer.h"

#include "image/archive/archive.h"
#include "image/build/stage_builder.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using Files = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kDockerfile =
    "FROM scratch AS tools\nRUN tool\nFROM scratch\nENV A=1\nCOPY f /f\nRUN make\nCOPY "
    "--from=tools / "
    "/t/\nCMD [\"x\"]\n";

class CacheTransfer : public testing::BuilderTest {
 protected:
  image::Image buildIn(image::ImageStore& store, const std::string& dockerfile, Files files,
                       std::optional<CacheMode> mode = {}) {
    files.emplace_back("Dockerfile", dockerfile);
    const std::string tar = contextTar(files);
    StringSource context(tar);
    events_.clear();
    runner_.ran.clear();
    BuildHooks hooks;
    hooks.report = [this](const BuildEvent& event) { events_.push_back(event); };
    hooks.pull_image = [](const image::Reference& name, const image::Platform&) -> image::Image {
      throw Error(ErrorKind::kNotFound, "pull " + name.text() + ": not in this test");
    };
    hooks.cache_mode = mode;
    hooks.deliver_cache = [this](const image::Image& made) { cache_ = made; };
    return buildImage(store, runner_, context, request_, hooks);
  }
  // As --cache-to type=local does it, and --cache-from at the other place.
  void carry(const image::Image& image) {
    StringSink archive;
    image::saveArchive(store_, {image.id.text()}, archive);
    StringSource source(archive.text);
    image::loadArchive(other_, source, {});
  }
  std::string warnings() const {
    std::string text;
    for (const auto& event : events_) {
      if (event.kind == BuildEvent::Kind::kWarning) text += event.text + "\n";
    }
    return text;
  }

  TemporaryDirectory other_folder_{"hull-build-test"};
  image::ImageStore other_{other_folder_.path()};
  image::Image cache_;
};

TEST_F(CacheTransfer, AnExportedCacheMakesTheSameImageElsewhereWithoutRunningAnything) {
  const Files files = {{"f", "F"}};
  const auto made = buildIn(store_, kDockerfile, files, CacheMode::kMax);
  EXPECT_THAT(runner_.ran, SizeIs(2));
  carry(cache_);
  request_.cache_from = {{cache_.id.text(), false}};
  const auto again = buildIn(other_, kDockerfile, files);
  EXPECT_THAT(runner_.ran, SizeIs(0));
  EXPECT_EQ(again.id, made.id);
  EXPECT_EQ(warnings(), "");
  buildIn(other_, kDockerfile, {{"f", "changed"}});
  EXPECT_THAT(runner_.ran, SizeIs(1)) << "what stands on the changed file is made, the rest is not";
}

TEST_F(CacheTransfer, TheSmallModeHoldsTheStepsOfTheResultOnly) {
  const Files files = {{"f", "F"}};
  buildIn(store_, kDockerfile, files, CacheMode::kMin);
  EXPECT_THAT(cache_.config.diff_ids, SizeIs(3));
  carry(cache_);
  request_.cache_from = {{cache_.id.text(), false}};
  buildIn(other_, kDockerfile, files);
  ASSERT_THAT(runner_.ran, SizeIs(1));
  EXPECT_EQ(runner_.ran[0].step.arguments.back(), "tool");
}

TEST_F(CacheTransfer, AnImageMayCarryItsOwnCache) {
  request_.inline_cache = true;
  request_.tags = {image::Reference::parse("app")};
  const std::string dockerfile = "FROM scratch\nCOPY f /f\nRUN make\n";
  const auto made = buildIn(store_, dockerfile, {{"f", "F"}});
  EXPECT_THAT(made.config.build_cache, SizeIs(2));
  StringSink archive;
  image::saveArchive(store_, {"app"}, archive);
  StringSource source(archive.text);
  image::loadArchive(other_, source, {});
  request_.cache_from = {{"app", false}};
  EXPECT_EQ(buildIn(other_, dockerfile, {{"f", "F"}}).id, made.id);
  EXPECT_THAT(runner_.ran, SizeIs(0));
  request_.inline_cache = false;
  EXPECT_THAT(buildIn(other_, "FROM app\nRUN more\n", {}).config.build_cache, SizeIs(0));
}

TEST_F(CacheTransfer, AForgedStepDeceivesOnlyWhoNamesItsCache) {
  const std::string dockerfile = "FROM scratch\nRUN make\n";
  buildIn(store_, dockerfile, {}, CacheMode::kMax);
  const std::string key = cache_.config.build_cache.at(0).key;
  const auto evil = ingestTar(other_.layers(), image::KeepBlob::kCompress, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    image::Entry entry;
    entry.path = "evil";
    tar.add(entry, -1);
    tar.finish();
  });
  image::ImageConfig config;
  config.build_cache = {{key, "2024-01-01T00:00:00Z", "RUN make", 0}};
  const auto forged = other_.create(config, {evil}, {});
  request_.cache_from = {{forged.id.text(), false}};
  EXPECT_TRUE(RootFs(other_.layers(), buildIn(other_, dockerfile, {}).config.diff_ids)
                  .tree()
                  .find("evil") != image::kNoInode);
  request_.cache_from.clear();
  const auto honest = buildIn(other_, dockerfile, {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  EXPECT_EQ(RootFs(other_.layers(), honest.config.diff_ids).tree().find("evil"), image::kNoInode);
}

TEST_F(CacheTransfer, WithoutItsCacheABuildWarnsAndGoesOn) {
  request_.cache_from = {{"nowhere", false}, {"not a name", true}};
  buildIn(store_, "FROM scratch\nRUN make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  EXPECT_THAT(warnings(), HasSubstr("--cache-from nowhere: built without it"));
  EXPECT_THAT(warnings(), HasSubstr("--cache-from not a name: built without it"));
}

TEST_F(CacheTransfer, NoCacheMeansNoImportedOneEither) {
  buildIn(store_, "FROM scratch\nRUN make\n", {}, CacheMode::kMax);
  carry(cache_);
  request_.cache_from = {{cache_.id.text(), false}};
  request_.no_cache = true;
  buildIn(other_, "FROM scratch\nRUN make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
}

TEST(PackSteps, LayersBeyondAnImagesAreLeftOutAndCounted) {
  std::vector<StepRecord> records;
  for (size_t i = 0; i < image::kMaxLayers + 3; ++i) {
    image::IngestedLayer layer;
    layer.diff_id = image::Digest::of("layer " + std::to_string(i));
    records.push_back({"key " + std::to_string(i), {"now", layer}, std::string(5000, 'd'), 0});
  }
  records.push_back({"key 0", {"now", std::nullopt}, "again", 0});
  std::vector<image::IngestedLayer> layers;
  const PackedSteps packed = packSteps(records, layers, true);
  EXPECT_EQ(layers.size(), image::kMaxLayers);
  EXPECT_EQ(packed.steps.size(), image::kMaxLayers);
  EXPECT_EQ(packed.left_out, 3u);
  EXPECT_LE(packed.steps[0].description.size(), image::kMaxCacheTextBytes);
  std::vector<image::IngestedLayer> one = {layers[1]};
  EXPECT_EQ(packSteps(records, one, false).steps.at(0).key, "key 1");
}

}  // namespace
}  // namespace hull::build
