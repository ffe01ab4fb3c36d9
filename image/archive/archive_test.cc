#include "image/archive/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "image/store/testing/image_fixture.h"

namespace hull::image {
namespace {

using ::testing::ElementsAre;
using testing::gzip;
using ::testing::HasSubstr;
using testing::MemoryBlobs;
using testing::TarBuilder;

std::string tarOf(const std::string& name, const std::string& content) {
  return TarBuilder().directory("./").file(name, content).end();
}

std::string configFor(const std::vector<std::string>& tars, const std::string& arch = "amd64") {
  ImageConfig config;
  config.platform.architecture = arch;
  config.created = "2024-01-01T00:00:00Z";
  for (const std::string& tar : tars) config.diff_ids.push_back(Digest::of(tar));
  return toJson(config);
}

const std::string kBase = tarOf("base", "base");
const std::string kTop = tarOf("top", "top");

// As docker before 25 wrote it, with a link for a layer that is there already.
TarBuilder dockerArchive(const std::string& config, const std::string& top = kTop) {
  TarBuilder builder;
  builder.directory("aa/").file("aa/layer.tar", kBase).file("aa/VERSION", "1.0");
  builder.directory("bb/").file("bb/layer.tar", top);
  builder.symlink("cc/layer.tar", "../aa/layer.tar");
  builder.file("config.json", config);
  builder.file("manifest.json",
               R"([{"Config":"config.json","RepoTags":["app:1","localhost:5000/app:2"],)"
               R"("Layers":["cc/layer.tar","bb/layer.tar"]}])");
  return builder;
}

class ArchiveTest : public ::testing::Test {
 protected:
  TemporaryDirectory folder_, other_folder_;
  ImageStore store_{folder_.path()};
  ImageStore other_{other_folder_.path()};

  std::vector<Image> load(const std::string& archive) {
    StringSource source(archive);
    return loadArchive(store_, source);
  }
  Error errorOf(const std::string& archive) {
    Error result(ErrorKind::kInternal, "accepted");
    try {
      load(archive);
    } catch (const Error& error) {
      result = error;
    }
    EXPECT_TRUE(store_.list().empty()) << result.what();
    return result;
  }
  std::string save(ImageStore& store, const std::vector<std::string>& names) {
    StringSink out;
    saveArchive(store, names, out);
    return out.text;
  }
};

TEST_F(ArchiveTest, DockerArchivesLoadWithTheirIdsAndNames) {
  const std::string config = configFor({kBase, kTop});
  const std::string plain = dockerArchive(config).end();
  for (const std::string& archive : {plain, gzip(plain), testing::zstd(plain)}) {
    const std::vector<Image> images = load(archive);
    ASSERT_EQ(images.size(), 1u);
    EXPECT_EQ(images[0].id, Digest::of(config));
    EXPECT_EQ(store_.get("app:1").id, images[0].id);
    EXPECT_EQ(store_.get("localhost:5000/app:2").id, images[0].id);
    EXPECT_NE(store_.tree(images[0]).find("base"), kNoInode);
    EXPECT_NE(store_.tree(images[0]).find("top"), kNoInode);
    EXPECT_EQ(images[0].layer_blobs[0].media_type, media_type::kOciLayerGzip);
    store_.remove(images[0].id.text(), true, {});
    EXPECT_TRUE(store_.list().empty());
  }
}

TEST_F(ArchiveTest, DockerArchivesWithCompressedLayersKeepTheirBlobs) {
  const std::string config = configFor({kBase, kTop});
  const std::string archive = dockerArchive(config, gzip(kTop)).end();
  EXPECT_EQ(load(archive)[0].layer_blobs[1].digest, Digest::of(gzip(kTop)));
}

std::string ociArchive(const std::string& annotations, const std::string& platform = "",
                       const std::string& arch = "amd64") {
  MemoryBlobs blobs;
  ImageConfig config;
  config.platform.architecture = arch;
  const testing::TestImage image = testing::makeImage(blobs, {kBase, kTop}, config);
  const Digest manifest = blobs.put(image.manifest_text);
  TarBuilder builder;
  builder.file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  builder.file("index.json", R"({"schemaVersion":2,"manifests":[{"mediaType":")" +
                                 image.manifest.media_type + R"(","digest":")" + manifest.text() +
                                 R"(","size":)" + std::to_string(image.manifest_text.size()) +
                                 platform + R"(,"annotations":)" + annotations + "}]}");
  for (const auto& [digest, content] : blobs.blobs) {
    builder.file("blobs/sha256/" + std::string(digest.hex()), content);
  }
  return builder.end();
}

TEST_F(ArchiveTest, OciLayoutsLoad) {
  load(ociArchive(R"({"org.opencontainers.image.ref.name":"localhost/app:3"})"));
  EXPECT_TRUE(store_.find("localhost/app:3"));
  load(ociArchive(
      R"({"io.containerd.image.name":"docker.io/library/x:1","org.opencontainers.image.ref.name":"1"})"));
  EXPECT_THAT(store_.get("x:1").tags.size(), 2u);
  EXPECT_TRUE(load(ociArchive("{}"))[0].tags.size() == 2u) << "names it had are kept";
}

TEST_F(ArchiveTest, ImagesOfOtherPlatformsAreKept) {
  const auto platformOf = [&](const std::string& archive) {
    return load(archive).at(0).config.platform.text();
  };
  const std::string arm = R"(,"platform":{"os":"linux","architecture":"arm64"})";
  EXPECT_EQ(platformOf(ociArchive("{}", arm, "arm64")), "linux/arm64");
  EXPECT_EQ(platformOf(ociArchive("{}", "", "riscv64")), "linux/riscv64");
  EXPECT_EQ(platformOf(dockerArchive(configFor({kBase, kTop}, "s390x")).end()), "linux/s390x");
  EXPECT_EQ(store_.list().size(), 3u);
}

TEST_F(ArchiveTest, OfSeveralPlatformsThisHostsIsLoaded) {
  MemoryBlobs blobs;
  std::string entries;
  for (const char* arch : {"arm64", "amd64", "unknown"}) {
    ImageConfig config;
    config.platform.architecture = arch;
    const testing::TestImage image = testing::makeImage(blobs, {kBase, kTop}, config);
    const Digest manifest = blobs.put(image.manifest_text);
    const std::string os = arch == std::string("unknown") ? "unknown" : "linux";
    entries += (entries.empty() ? R"({"mediaType":")" : R"(,{"mediaType":")") +
               image.manifest.media_type + R"(","digest":")" + manifest.text() + R"(","size":)" +
               std::to_string(image.manifest_text.size()) + R"(,"platform":{"os":")" + os +
               R"(","architecture":")" + arch + "\"}}";
  }
  const auto archive = [&](const std::string& index) {
    TarBuilder builder;
    builder.file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})").file("index.json", index);
    for (const auto& [digest, content] : blobs.blobs)
      builder.file("blobs/sha256/" + std::string(digest.hex()), content);
    return builder.end();
  };
  const std::string index = R"({"schemaVersion":2,"manifests":[)" + entries + "]}";
  const auto flat = load(archive(index));
  ASSERT_EQ(flat.size(), 1u);
  EXPECT_EQ(flat[0].config.platform.text(), "linux/amd64");
  // As docker saves it: the index as a blob of its own.
  const Digest nested = blobs.put(index);
  EXPECT_EQ(load(archive(R"({"schemaVersion":2,"manifests":[{"mediaType":")" +
                         std::string(media_type::kOciIndex) + R"(","digest":")" + nested.text() +
                         R"(","size":)" + std::to_string(index.size()) + "}]}"))[0]
                .id,
            flat[0].id);
}

TEST_F(ArchiveTest, BadArchivesRecordNothing) {
  const std::string good = dockerArchive(configFor({kBase, kTop})).end();
  EXPECT_EQ(errorOf("").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf("rubbish").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(tarOf("etc/passwd", "root")).kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(errorOf(tarOf("etc/passwd", "root")).what(), HasSubstr("import"));
  EXPECT_EQ(errorOf(tarOf("repositories", "{}")).kind(), ErrorKind::kNotSupported);
  EXPECT_EQ(errorOf(good.substr(0, good.size() / 2)).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(gzip(good).substr(0, 400)).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(dockerArchive(configFor({kBase})).end()).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(dockerArchive(configFor({kTop, kBase})).end()).kind(), ErrorKind::kCorrupt);
  for (const char* manifest :
       {"", "{}", "[]", "[7]", R"([{"Config":"../../etc/passwd","Layers":[]}])",
        R"([{"Config":"loop","Layers":[]}])", R"([{"Config":"m","RepoTags":7}])"}) {
    TarBuilder builder;
    builder.symlink("loop", "loop").file("m", "{}").file("manifest.json", manifest);
    EXPECT_EQ(errorOf(builder.end()).kind(), ErrorKind::kCorrupt) << manifest;
  }
}

TEST_F(ArchiveTest, OneBadImageOfTwoRecordsNeither) {
  const std::string config = configFor({kBase, kTop});
  TarBuilder builder = dockerArchive(config);
  builder.file("manifest.json",
               R"([{"Config":"config.json","RepoTags":["good:1"],"Layers":["cc/layer.tar",)"
               R"("bb/layer.tar"]},{"Config":"config.json","RepoTags":["bad:1"],)"
               R"("Layers":["bb/layer.tar","bb/layer.tar"]}])");
  // The layers are known by diff id by then, so only a wrong count or content can fail.
  builder.file("config2.json", configFor({kBase, tarOf("never", "there")}));
  builder.file("manifest.json",
               R"([{"Config":"config.json","RepoTags":["good:1"],"Layers":["cc/layer.tar",)"
               R"("bb/layer.tar"]},{"Config":"config2.json","RepoTags":["bad:1"],)"
               R"("Layers":["aa/layer.tar","bb/layer.tar"]}])");
  EXPECT_EQ(errorOf(builder.end()).kind(), ErrorKind::kCorrupt);
  store_.collectGarbage();
  store_.layers().forEach([](const Digest& id) { ADD_FAILURE() << id.text() << " is left"; });
}

TEST_F(ArchiveTest, SavedImagesLoadTheSameAndSaveTheSame) {
  load(dockerArchive(configFor({kBase, kTop})).end());
  store_.tag(store_.get("app:1").id, Reference::parse("app:9"));
  const std::string archive = save(store_, {"app:1"});
  EXPECT_EQ(save(store_, {"app:1", "app:1"}), archive) << "deterministic";
  StringSource source(archive);
  const std::vector<Image> loaded = loadArchive(other_, source);
  ASSERT_EQ(loaded.size(), 1u);
  const Image original = store_.get("app:1");
  EXPECT_EQ(loaded[0].id, original.id);
  EXPECT_EQ(loaded[0].manifest, original.manifest);
  EXPECT_EQ(loaded[0].tags.size(), 1u);
  EXPECT_EQ(save(other_, {"app:1"}), archive);
}

TEST_F(ArchiveTest, SaveTakesIdsAndAllTagsOfAName) {
  load(dockerArchive(configFor({kBase, kTop})).end());
  store_.tag(store_.get("app:1").id, Reference::parse("app:9"));
  const std::string with_tags = save(store_, {"app"});
  StringSource source(with_tags);
  const auto loaded = loadArchive(other_, source);
  ASSERT_EQ(loaded.size(), 1u);
  EXPECT_EQ(loaded[0].tags.size(), 2u);
  const std::string bare = save(store_, {store_.get("app:1").id.shortHex()});
  EXPECT_THAT(bare, HasSubstr(R"("RepoTags":null)"));
  EXPECT_THROW(save(store_, {"nothing"}), Error);
  EXPECT_THROW(save(store_, {}), Error);
}

// What was saved is a docker-archive too: the OCI half hidden, the other half must do.
TEST_F(ArchiveTest, SavedArchivesAreReadableAsDockerArchives) {
  load(dockerArchive(configFor({kBase, kTop})).end());
  std::string archive = save(store_, {"app:1"});
  const size_t name = archive.find("oci-layout");
  std::string header = archive.substr(name, 512);
  header[0] = 'x';
  testing::fixChecksum(header);
  archive.replace(name, 512, header);
  StringSource source(archive);
  EXPECT_EQ(loadArchive(other_, source)[0].id, store_.get("app:1").id);
}

TEST_F(ArchiveTest, ImportMakesAnImageOfARootfs) {
  RuntimeConfig config;
  config.cmd = {"sh"};
  const std::string tar = gzip(kBase);
  StringSource source(tar);
  const Image image = importRootfs(
      store_, source,
      {config, {"linux", "arm64", ""}, {Reference::parse("imported")}, "Imported from -"});
  EXPECT_EQ(image.config.platform.text(), "linux/arm64");
  EXPECT_THAT(*image.config.config.cmd, ElementsAre("sh"));
  EXPECT_EQ(image.config.history[0].comment, "Imported from -");
  EXPECT_THAT(image.config.diff_ids, ElementsAre(Digest::of(kBase)));
  EXPECT_NE(store_.tree(image).find("base"), kNoInode);
  EXPECT_EQ(store_.get("imported").id, image.id);
  StringSource broken("not a tar at all");
  EXPECT_THROW(importRootfs(store_, broken, {config, {}, {}, ""}), Error);
}

}  // namespace
}  // namespace hull::image
