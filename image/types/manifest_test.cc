#include "image/types/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::image {
namespace {

using testing::HasSubstr;

const std::string kA = "sha256:" + std::string(64, 'a');
const std::string kB = "sha256:" + std::string(64, 'b');

std::string descriptor(const std::string& type, const std::string& digest,
                       const std::string& more = "") {
  return R"({"mediaType":")" + type + R"(","digest":")" + digest + R"(","size":7)" + more + "}";
}

std::string manifestText(const std::string& type = media_type::kOciManifest) {
  return R"({"schemaVersion":2,"mediaType":")" + type + R"(","config":)" +
         descriptor(media_type::kOciConfig, kA) + R"(,"layers":[)" +
         descriptor(media_type::kOciLayerGzip, kB, R"(,"annotations":{"k":"v"})") + "]}";
}

Error errorOf(const std::string& text, std::string_view type = {}) {
  try {
    parseManifest(text, type);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "accepted");
}

TEST(Manifest, ParsesAndWritesBack) {
  const Manifest manifest = std::get<Manifest>(parseManifest(manifestText()));
  EXPECT_EQ(manifest.config.digest.text(), kA);
  ASSERT_EQ(manifest.layers.size(), 1u);
  EXPECT_EQ(manifest.layers[0].size, 7u);
  EXPECT_EQ(manifest.layers[0].annotations.at("k"), "v");
  EXPECT_EQ(toJson(manifest), manifestText());
}

TEST(Manifest, DockerTypesAreKnown) {
  EXPECT_TRUE(std::holds_alternative<Manifest>(
      parseManifest(manifestText(media_type::kDockerManifest), media_type::kDockerManifest)));
}

TEST(Manifest, NullLayersAreNone) {
  const std::string text =
      R"({"schemaVersion":2,"layers":null,"config":)" + descriptor("x", kA) + "}";
  EXPECT_TRUE(std::get<Manifest>(parseManifest(text)).layers.empty());
}

TEST(Manifest, TypeComesFromTheServerWhenTheDocumentHasNone) {
  const std::string text = R"({"schemaVersion":2,"manifests":[]})";
  EXPECT_EQ(std::get<Index>(parseManifest(text, media_type::kDockerList)).media_type,
            media_type::kDockerList);
  EXPECT_EQ(std::get<Index>(parseManifest(text)).media_type, media_type::kOciIndex);
}

// CVE-2021-41190.
TEST(Manifest, MediaTypeConfusionIsRefused) {
  const std::string both =
      R"({"schemaVersion":2,"manifests":[],"layers":[],"config":)" + descriptor("x", kA) + "}";
  EXPECT_THAT(errorOf(both).what(), HasSubstr("both"));
  EXPECT_EQ(errorOf(manifestText(), media_type::kOciIndex).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(manifestText(media_type::kOciIndex)).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"manifests":[]})", media_type::kOciManifest).kind(),
            ErrorKind::kCorrupt);
}

TEST(Manifest, MalformedDocumentsAreErrors) {
  EXPECT_EQ(errorOf("").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf("[]").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf("{").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf("{}").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(R"({"schemaVersion":1})").kind(), ErrorKind::kNotSupported);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"layers":[]})").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"mediaType":7})").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(
      errorOf(R"({"schemaVersion":2,"config":)" + descriptor("x", "sha256:../../etc") + "}").kind(),
      ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"config":{"digest":")" + kA + R"(","size":-1}})").kind(),
            ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"config":[1],"layers":5})").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(manifestText("application/vnd.x")).kind(), ErrorKind::kNotSupported);
}

TEST(Manifest, HugeDocumentsAreRefused) {
  EXPECT_EQ(errorOf(std::string(kMaxManifestBytes + 1, ' ')).kind(), ErrorKind::kTooLarge);
  std::string layers = descriptor("x", kA);
  for (size_t i = 0; i < kMaxLayers; ++i) layers += "," + descriptor("x", kA);
  EXPECT_EQ(errorOf(R"({"schemaVersion":2,"config":)" + descriptor("x", kA) + R"(,"layers":[)" +
                    layers + "]}")
                .kind(),
            ErrorKind::kTooLarge);
}

TEST(Manifest, DeepNestingIsSurvived) {
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(errorOf(deep).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(deep + std::string(1'000'000, ']')).kind(), ErrorKind::kCorrupt);
}

Descriptor entry(const std::string& platform, char digit) {
  Descriptor result;
  result.digest = Digest::parse("sha256:" + std::string(64, digit));
  if (!platform.empty()) result.platform = Platform::parse(platform);
  return result;
}

TEST(Index, SelectsThePlatform) {
  const Index index{
      media_type::kOciIndex,
      {entry("", '0'), entry("linux/arm64/v8", '1'), entry("linux/amd64/v3", '2'),
       entry("linux/amd64", '3'), entry("linux/arm/v7", '4'), entry("unknown/unknown", '5')}};
  const auto picked = [&](const char* text) {
    return index.select(Platform::parse(text)).digest.hex().front();
  };
  EXPECT_EQ(picked("linux/amd64"), '3');
  EXPECT_EQ(picked("linux/amd64/v3"), '2');
  EXPECT_EQ(picked("linux/amd64/v2"), '3');
  EXPECT_EQ(picked("linux/arm64"), '1');
  EXPECT_EQ(picked("linux/arm"), '4');
  try {
    index.select(Platform::parse("linux/s390x"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("linux/arm64/v8, linux/amd64/v3, linux/amd64"));
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("unknown")));
  }
}

TEST(Platform, Parses) {
  EXPECT_EQ(Platform::parse("linux/x86_64").text(), "linux/amd64");
  EXPECT_EQ(Platform::parse("linux/aarch64").text(), "linux/arm64");
  EXPECT_EQ(Platform::parse("arm64").text(), "linux/arm64");
  EXPECT_EQ(Platform::parse("windows").text(), "windows/amd64");
  for (const char* bad : {"", "/", "linux/", "linux/a/b/c", "Linux/amd64", "linux/\n", "banana"}) {
    EXPECT_THROW(Platform::parse(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace hull::image
