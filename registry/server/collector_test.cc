// What garbage collection and retention remove, what they leave, and what verify finds.
#include "registry/server/collector.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/file.h"
#include "registry/server/verify.h"

namespace hull::registry {
namespace {

using image::Digest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

class Collector : public ::testing::Test {
 protected:
  Digest blob(const std::string& repository, const std::string& content) {
    const std::string path = folder_.path() + "/incoming";
    writeFileAtomic(path, content);
    store_.publishBlob(repository, Digest::of(content), path);
    return Digest::of(content);
  }

  Digest put(const std::string& repository, const std::string& tag, const std::string& type,
             const std::string& text, const std::vector<Digest>& blobs,
             const std::vector<Digest>& manifests = {}, const Digest& subject = {}) {
    NewManifest manifest;
    manifest.bytes = text;
    manifest.digest = Digest::of(text);
    manifest.media_type = type;
    manifest.tag = tag;
    manifest.needed_blobs = blobs;
    manifest.needed_manifests = manifests;
    manifest.subject = subject;
    if (!subject.empty()) manifest.descriptor = "{\"digest\":\"" + manifest.digest.text() + "\"}";
    EXPECT_FALSE(store_.putManifest(repository, manifest));
    return manifest.digest;
  }

  static std::string entry(const Digest& digest) {
    return R"({"mediaType":"a/b","size":1,"digest":")" + digest.text() + "\"}";
  }
  static std::string manifestText(const Digest& config, const std::string& extra = {}) {
    return R"({"schemaVersion":2,"config":)" + entry(config) + R"(,"layers":[])" + extra + "}";
  }

  // Makes a tag look that many seconds old.
  void age(const std::string& path, int seconds) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const timespec times[2] = {{now.tv_sec - seconds, 0}, {now.tv_sec - seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0) << path;
  }

  std::vector<std::string> collect(CollectionOptions options = {}, bool dry_run = false,
                                   const std::vector<std::string>& immutable_tags = {}) {
    std::vector<std::string> lines;
    const auto report = [&](const std::string& line) { lines.push_back(line); };
    report_ = collectGarbage(store_, {options, dry_run, report, nullptr, immutable_tags});
    return lines;
  }

  static CollectionOptions now(bool untagged = false) {
    CollectionOptions options;
    options.grace = std::chrono::seconds(-5);
    options.untagged = untagged;
    return options;
  }

  std::vector<std::string> problems() {
    std::vector<std::string> found;
    verifyStore(store_, {}, [&](const std::string& line) { found.push_back(line); });
    return found;
  }

  TemporaryDirectory folder_{"hull-collector"};
  RepositoryStore store_{folder_.path()};
  CollectionReport report_;
};

TEST_F(Collector, UnneededBlobsGoAndNeededOnesStay) {
  const Digest needed = blob("a", "needed");
  const Digest lost = blob("a", "lost");
  const Digest shared = blob("a", "shared");
  store_.mountBlob("a", "b", shared);
  put("a", "v1", kManifestType, manifestText(needed), {needed});
  put("b", "v1", kManifestType, manifestText(shared), {shared});

  EXPECT_THAT(collect(), IsEmpty()) << "younger than the grace period";
  const std::vector<std::string> would = {"blob a@" + lost.text(), "blob a@" + shared.text(),
                                          "content " + lost.text() + " (4 bytes)"};
  EXPECT_THAT(collect(now(), true), ::testing::UnorderedElementsAreArray(would));
  EXPECT_TRUE(store_.hasBlob("a", lost)) << "it was a dry run";
  EXPECT_THAT(collect(now()), ::testing::UnorderedElementsAreArray(would));
  EXPECT_EQ(report_.bytes, 4u);
  EXPECT_FALSE(store_.blobs().has(lost));
  EXPECT_FALSE(store_.hasBlob("a", shared));
  EXPECT_TRUE(store_.hasBlob("b", shared));
  EXPECT_TRUE(store_.hasBlob("a", needed));
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(collect(now()), IsEmpty());
}

// A client that asked and was told "it is here" will name it in a manifest later.
TEST_F(Collector, WhatAPushReliesOnStays) {
  const Digest asked = blob("a", "asked for");
  const std::string link =
      folder_.path() + "/repositories/a/_layers/sha256-" + std::string(asked.hex());
  age(link, 1000);
  age(store_.blobs().path(asked), 1000);
  EXPECT_TRUE(store_.confirmBlob("a", asked));
  CollectionOptions options;
  options.grace = std::chrono::seconds(100);
  EXPECT_THAT(collect(options), IsEmpty());
  age(link, 1000);
  EXPECT_THAT(collect(options), ::testing::SizeIs(2));
}

TEST_F(Collector, UntaggedManifestsGoWhenAskedTo) {
  const Digest config = blob("a", "config");
  const Digest child = put("a", "", kManifestType, manifestText(config), {config});
  const Digest index =
      put("a", "multi", kIndexType, R"({"schemaVersion":2,"manifests":[)" + entry(child) + "]}", {},
          {child});
  const Digest signature =
      put("a", "", kManifestType, manifestText(config, R"(,"subject":)" + entry(index)), {config},
          {}, index);
  const Digest lost = put("a", "", kManifestType, manifestText(config, R"(,"x":1)"), {config});
  EXPECT_THAT(collect(now()), IsEmpty()) << "not asked to";
  EXPECT_THAT(collect(now(true)), ::testing::Contains("manifest a@" + lost.text()));
  EXPECT_EQ(report_.manifests, 1u);
  EXPECT_TRUE(store_.findManifest("a", child));
  EXPECT_TRUE(store_.findManifest("a", signature));
  EXPECT_THAT(problems(), IsEmpty());

  EXPECT_TRUE(store_.removeTag("a", "multi"));
  collect(now(true));
  EXPECT_EQ(report_.manifests, 3u);
  EXPECT_EQ(report_.blobs, 1u);
  EXPECT_THAT(store_.referrers("a", index), IsEmpty());
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(Collector, RetentionKeepsTheNewestTheYoungAndTheNamed) {
  const Digest config = blob("ci/app", "config");
  int seconds = 1000;
  for (const char* tag : {"v0", "release", "v1", "v2", "v3", "v4"}) {
    put("ci/app", tag, kManifestType, manifestText(config), {config});
    age(folder_.path() + "/repositories/ci/app/_tags/" + tag, seconds);
    seconds -= 100;  // v0 is 1000 s old, v4 500 s
  }
  put("other", "v0", kManifestType, manifestText(blob("other", "config")), {config});
  CollectionOptions options;
  RetentionRule rule;
  rule.repository = "ci/*";
  rule.keep = {"rel*"};
  rule.keep_newest = 2;
  rule.keep_younger = std::chrono::seconds(750);  // v2 and younger
  options.retention = {rule};
  EXPECT_THAT(collect(options, true), UnorderedElementsAre("tag ci/app:v0", "tag ci/app:v1"));
  EXPECT_EQ(store_.tags("ci/app").size(), 6u);
  collect(options);
  EXPECT_EQ(report_.tags, 2u);
  EXPECT_THAT(store_.tags("ci/app"), ElementsAre("release", "v2", "v3", "v4"));
  EXPECT_THAT(store_.tags("other"), ElementsAre("v0"));
}

TEST_F(Collector, RetentionLeavesImmutableTagsAlone) {
  const Digest config = blob("ci/app", "config");
  for (const char* tag : {"v1", "v2", "x1", "x2"}) {
    put("ci/app", tag, kManifestType, manifestText(config), {config});
    age(folder_.path() + "/repositories/ci/app/_tags/" + tag, 1000);
  }
  CollectionOptions options;
  RetentionRule rule;
  rule.repository = "**";
  rule.keep_younger = std::chrono::seconds(100);
  options.retention = {rule};
  const std::vector<std::string> immutable = {"other:x*", "ci/*:v*"};
  EXPECT_THAT(collect(options, true, immutable),
              UnorderedElementsAre("tag ci/app:x1", "tag ci/app:x2"));
  collect(options, false, immutable);
  EXPECT_THAT(store_.tags("ci/app"), ElementsAre("v1", "v2"));
}

// What is needed cannot be known then: nothing of that repository may go.
TEST_F(Collector, UnreadableManifestsStopTheirRepositoryOnly) {
  put("broken", "t", kManifestType, "no json", {});
  const Digest kept = blob("broken", "kept");
  const Digest lost = blob("fine", "lost");
  const auto lines = collect(now());
  EXPECT_THAT(lines, UnorderedElementsAre("blob fine@" + lost.text(),
                                          "content " + lost.text() + " (4 bytes)"));
  EXPECT_TRUE(store_.hasBlob("broken", kept));
}

TEST_F(Collector, UsageFollowsPushesMountsAndRemovals) {
  blob("a", "12345");
  EXPECT_EQ(store_.bytesOf("**"), 5u);
  const Digest second = blob("a", "1234567");
  store_.mountBlob("a", "b", second);
  store_.mountBlob("a", "b", second);
  EXPECT_EQ(store_.bytesOf("a"), 12u);
  EXPECT_EQ(store_.bytesOf("b"), 7u);
  store_.removeBlob("a", second);
  EXPECT_EQ(store_.bytesOf("**"), 12u);
  collect(now());
  EXPECT_EQ(store_.bytesOf("**"), 0u);
}

TEST_F(Collector, VerifyFindsWhatIsWrong) {
  const Digest config = blob("a", "config");
  const Digest manifest = put("a", "v1", kManifestType, manifestText(config), {config});
  EXPECT_THAT(problems(), IsEmpty());
  std::ofstream(store_.blobs().path(config), std::ios::app) << "!";
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("content " + config.text() + ": its digest is")));
  store_.blobs().remove(config);
  EXPECT_THAT(problems(), UnorderedElementsAre(
                              HasSubstr("blob a@" + config.text() + ": its content is missing"),
                              HasSubstr("manifest a@" + manifest.text() + ": blob")));
  store_.blobs().remove(manifest);
  EXPECT_THAT(problems(), ::testing::Contains(HasSubstr("tag a:v1: its manifest is missing")));
}

}  // namespace
}  // namespace hull::registry
