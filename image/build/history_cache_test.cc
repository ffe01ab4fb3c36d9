// --cache-from of images that have a history and nothing else.
#include "image/build/history_cache.h"

#include "image/archive/archive.h"
#include "image/build/stage_builder.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::SizeIs;
using Files = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kDockerfile =
    "FROM scratch\nARG V\nENV A=1 B=two\nCOPY f /d/f\nRUN make\nWORKDIR /w/x\nRUN more\nCMD "
    "[\"x\"]\n";

class HistoryCacheTest : public testing::BuilderTest {
 protected:
  image::Image buildElsewhere(const std::string& dockerfile, Files files) {
    files.emplace_back("Dockerfile", dockerfile);
    const std::string tar = contextTar(files);
    StringSource context(tar);
    runner_.ran.clear();
    BuildHooks hooks;
    hooks.pull_image = [](const image::Reference& name, const image::Platform&) -> image::Image {
      throw Error(ErrorKind::kNotFound, "pull " + name.text() + ": not in this test");
    };
    BuildRequest request = request_;
    request.tags.clear();
    return buildImage(other_, runner_, context, request, hooks);
  }
  // Built here as "app", and there with nothing but its layers, configuration and history.
  image::Image carried(const std::string& dockerfile, const Files& files) {
    request_.tags = {image::Reference::parse("app")};
    const image::Image made = build(dockerfile, files);
    StringSink archive;
    image::saveArchive(store_, {"app"}, archive);
    StringSource source(archive.text);
    image::loadArchive(other_, source, {});
    request_.cache_from = {{"app", false}};
    return made;
  }
  image::IngestedLayer layerOf(const std::string& path, const std::string& text) {
    return ingestTar(other_.layers(), image::KeepBlob::kCompress, [&](Sink& sink) {
      image::LayerTarWriter tar(sink);
      const Fd content = makeMemfd("content");
      writeFull(content.get(), text);
      image::Entry entry;
      entry.path = path;
      entry.mode = 0644;
      entry.size = text.size();
      tar.add(entry, content.get());
      tar.finish();
    });
  }
  // As docker build without BuildKit leaves it.
  void classicImage(
      const std::vector<std::pair<std::string, std::optional<image::IngestedLayer>>>& steps) {
    image::ImageConfig config;
    std::vector<image::IngestedLayer> layers;
    for (const auto& [text, layer] : steps) {
      image::HistoryEntry entry;
      entry.created = "2024-01-01T00:00:00Z";
      entry.created_by = text;
      entry.empty_layer = !layer;
      config.history.push_back(entry);
      if (const size_t env = text.find("ENV "); env != std::string::npos)
        config.config.env.push_back(text.substr(env + 4));
      if (!layer) continue;
      config.diff_ids.push_back(layer->diff_id);
      layers.push_back(*layer);
    }
    request_.cache_from = {{other_.create(config, layers, {}).id.text(), false}};
  }

  TemporaryDirectory other_folder_{"hull-build-test"};
  image::ImageStore other_{other_folder_.path()};
};

TEST_F(HistoryCacheTest, UnchangedStepsAreTheImagesAndNothingRuns) {
  const auto made = carried(kDockerfile, {{"f", "F"}});
  const auto again = buildElsewhere(kDockerfile, {{"f", "F"}});  // a younger f: times do not count
  EXPECT_THAT(runner_.ran, SizeIs(0));
  EXPECT_EQ(again.config.diff_ids, made.config.diff_ids);
}

TEST_F(HistoryCacheTest, TheFirstStepThatDiffersEndsIt) {
  carried(kDockerfile, {{"f", "F"}});
  buildElsewhere(kDockerfile, {{"f", "changed"}});
  EXPECT_THAT(runner_.ran, SizeIs(2));
  std::string other = kDockerfile;
  buildElsewhere(other.replace(other.find("B=two"), 5, "B=2"), {{"f", "F"}});
  EXPECT_THAT(runner_.ran, SizeIs(2));
  request_.build_args = {{"V", "7"}};
  buildElsewhere(kDockerfile, {{"f", "F"}});
  EXPECT_THAT(runner_.ran, SizeIs(2)) << "an argument is part of a RUN";
  request_.build_args.clear();
  other = kDockerfile;
  buildElsewhere(other.replace(other.find("RUN more"), 8, "RUN less"), {{"f", "F"}});
  EXPECT_THAT(runner_.ran, SizeIs(1));
}

TEST_F(HistoryCacheTest, WhatTheHistoryCannotTellIsMade) {
  carried("FROM scratch\nRUN make\n", {});
  buildElsewhere("FROM scratch\nRUN --network=none make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  buildElsewhere("FROM scratch\nRUN --mount=type=tmpfs,target=/t make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  carried("FROM scratch\nENV A=\"1 B=2\"\nRUN spaces\n", {});
  buildElsewhere("FROM scratch\nENV A=1 B=2\nRUN spaces\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  request_.no_cache = true;
  buildElsewhere("FROM scratch\nRUN make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
}

TEST_F(HistoryCacheTest, ItIsTheBuildsThatNamesTheImageAndNoOthers) {
  carried("FROM scratch\nRUN make\n", {});
  buildElsewhere("FROM scratch\nRUN make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(0));
  request_.cache_from.clear();
  buildElsewhere("FROM scratch\nRUN make\n", {});
  EXPECT_THAT(runner_.ran, SizeIs(1));
}

TEST_F(HistoryCacheTest, TheClassicBuildersHistoryIsUnderstood) {
  classicImage({{"/bin/sh -c #(nop)  ENV A=1", {}},
                {"/bin/sh -c #(nop) COPY file:6ce3a8 in /f ", layerOf("f", "F")},
                {"/bin/sh -c make", layerOf("made", "M")},
                {"/bin/sh -c #(nop)  CMD [\"x\"]", {}}});
  const auto made =
      buildElsewhere("FROM scratch\nENV A=1\nCOPY f /f\nRUN make\nCMD [\"x\"]\n", {{"f", "F"}});
  EXPECT_THAT(runner_.ran, SizeIs(0));
  EXPECT_NE(RootFs(other_.layers(), made.config.diff_ids).tree().find("made"), image::kNoInode);
}

TEST_F(HistoryCacheTest, AHostileHistoryDoesNotReplaceWhatACopyBrings) {
  classicImage({{"COPY f /f # buildkit", layerOf("f", "evil")},
                {"RUN /bin/sh -c make # buildkit", layerOf("made", "M")}});
  const auto made = buildElsewhere("FROM scratch\nCOPY f /f\nRUN make\n", {{"f", "F"}});
  EXPECT_THAT(runner_.ran, SizeIs(1));
  EXPECT_EQ(RootFs(other_.layers(), made.config.diff_ids).readFile("/f", 100), "F");
}

TEST_F(HistoryCacheTest, AHistoryThatDoesNotFitItsLayersIsNone) {
  const auto layer = layerOf("made", "M");
  image::Image image;
  image.config.diff_ids = {layer.diff_id, layer.diff_id};
  image.layer_blobs.resize(2);
  image::HistoryEntry entry;
  entry.created_by = "RUN /bin/sh -c make # buildkit";
  image.config.history = {entry};
  EXPECT_FALSE(HistoryFollower::begin(image, {}, {}));
  image.config.history = {entry, entry, entry};
  EXPECT_FALSE(HistoryFollower::begin(image, {}, {}));
  image.config.history = {entry, entry};
  EXPECT_TRUE(HistoryFollower::begin(image, {}, {}));
  EXPECT_TRUE(HistoryFollower::begin(image, {entry}, {layer}));
  EXPECT_FALSE(HistoryFollower::begin(image, {}, {layer}));
  image::HistoryEntry other = entry;
  other.created_by = "RUN /bin/sh -c other # buildkit";
  EXPECT_FALSE(HistoryFollower::begin(image, {other}, {layer}));
}

TEST(PlainHistory, IsTheSameOfBothBuilders) {
  EXPECT_EQ(plainHistory("RUN |1 A=1 /bin/sh -c make # buildkit"), "|1 A=1 /bin/sh -c make");
  EXPECT_EQ(plainHistory("|1 A=1 /bin/sh -c make"), "|1 A=1 /bin/sh -c make");
  EXPECT_EQ(plainHistory("/bin/sh -c #(nop)  ENV A=1"), "ENV A=1");
  EXPECT_EQ(plainHistory("/bin/sh -c #(nop) WORKDIR /w "), "WORKDIR /w");
  EXPECT_EQ(plainHistory("ENV A=1"), "ENV A=1");
}

}  // namespace
}  // namespace hull::build
