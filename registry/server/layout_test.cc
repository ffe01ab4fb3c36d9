#include "registry/server/layout.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace hull::registry {
namespace {

using image::Digest;
using Json = nlohmann::json;

constexpr const char* kType = "application/vnd.oci.image.manifest.v1+json";

TEST(Layout, NamesEveryTagAndEveryUntaggedManifest) {
  const TemporaryDirectory folder("hull-layout");
  RepositoryStore store(folder.path());
  LayoutIndex layout(store);
  EXPECT_TRUE(layout.update());
  EXPECT_EQ(Json::parse(readFile(folder.path() + "/oci-layout"))["imageLayoutVersion"], "1.0.0");
  const auto put = [&](const std::string& bytes, const std::string& tag) {
    NewManifest manifest;
    manifest.bytes = bytes;
    manifest.digest = Digest::of(bytes);
    manifest.media_type = kType;
    manifest.tag = tag;
    EXPECT_FALSE(store.putManifest("team/app", manifest));
    return manifest.digest;
  };
  const Digest tagged = put("{ }", "1.0");
  put("{ }", "latest");
  const Digest untagged = put("{}", "");
  EXPECT_TRUE(layout.update());
  EXPECT_FALSE(layout.update()) << "nothing changed";
  const auto entries = [&] {
    return Json::parse(readFile(folder.path() + "/index.json"))["manifests"];
  };
  const Json entry = {{"mediaType", kType},
                      {"digest", tagged.text()},
                      {"size", 3},
                      {"annotations", {{"org.opencontainers.image.ref.name", "team/app:1.0"}}}};
  ASSERT_EQ(entries().size(), 3u);
  EXPECT_EQ(entries()[0], entry);
  EXPECT_EQ(entries()[2]["digest"], untagged.text());
  EXPECT_FALSE(entries()[2].contains("annotations"));

  EXPECT_TRUE(store.removeTag("team/app", "1.0"));
  EXPECT_TRUE(store.removeManifest("team/app", untagged));
  EXPECT_TRUE(layout.update());
  EXPECT_EQ(entries().size(), 1u);
}

}  // namespace
}  // namespace hull::registry
