#include "image/types/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::image {
namespace {

using testing::ElementsAre;

constexpr const char* kFull = R"({
  "created":"2024-01-02T03:04:05Z","author":"me","architecture":"arm64","variant":"v8","os":"linux",
  "config":{"User":"app:app","ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":["PATH=/bin","E="],
    "Entrypoint":["/init"],"Cmd":[],"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":{"a":"b"},
    "StopSignal":"SIGINT","Shell":["/bin/bash","-c"],"OnBuild":["RUN x"],"ArgsEscaped":true,
    "Healthcheck":{"Test":["CMD","true"],"Interval":1000,"Retries":3}},
  "rootfs":{"type":"layers","diff_ids":[
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},
  "history":[{"created_by":"ADD x","created":"2024-01-01T00:00:00Z"},
    {"created_by":"CMD","empty_layer":true,"comment":"c","author":"me"}]})";

TEST(ImageConfig, ParsesEverythingDockerWrites) {
  const ImageConfig config = parseImageConfig(kFull);
  EXPECT_EQ(config.platform.text(), "linux/arm64/v8");
  EXPECT_EQ(config.created, "2024-01-02T03:04:05Z");
  EXPECT_EQ(config.config.user, "app:app");
  EXPECT_THAT(config.config.exposed_ports, ElementsAre("53/udp", "80/tcp"));
  EXPECT_THAT(config.config.env, ElementsAre("PATH=/bin", "E="));
  EXPECT_THAT(*config.config.entrypoint, ElementsAre("/init"));
  ASSERT_TRUE(config.config.cmd.has_value());
  EXPECT_TRUE(config.config.cmd->empty());
  EXPECT_THAT(config.config.volumes, ElementsAre("/data"));
  EXPECT_THAT(config.config.shell, ElementsAre("/bin/bash", "-c"));
  ASSERT_TRUE(config.config.health_check.has_value());
  EXPECT_EQ(config.config.health_check->retries, 3);
  EXPECT_EQ(config.diff_ids.size(), 1u);
  ASSERT_EQ(config.history.size(), 2u);
  EXPECT_TRUE(config.history[1].empty_layer);
}

TEST(ImageConfig, WritingAndParsingKeepsEverything) {
  const std::string once = toJson(parseImageConfig(kFull));
  EXPECT_EQ(toJson(parseImageConfig(once)), once);
  EXPECT_THAT(once, testing::HasSubstr(R"("Cmd":[])"));
  EXPECT_THAT(once, testing::HasSubstr(R"("ExposedPorts":{"53/udp":{},"80/tcp":{}})"));
}

TEST(ImageConfig, NullsAndLoneTextAreAccepted) {
  const ImageConfig config = parseImageConfig(
      R"({"config":{"Env":null,"Cmd":"sh","Labels":null,"Entrypoint":null,"Volumes":null},
          "rootfs":{"type":"layers","diff_ids":null},"history":null})");
  EXPECT_THAT(*config.config.cmd, ElementsAre("sh"));
  EXPECT_FALSE(config.config.entrypoint.has_value());
  EXPECT_EQ(config.platform.text(), "linux/amd64");
  EXPECT_TRUE(config.diff_ids.empty());
}

TEST(ImageConfig, BytesThatAreNoTextAreReplaced) {
  ImageConfig config;
  config.config.env = {"A=\xff\xfe"};
  EXPECT_NO_THROW(parseImageConfig(toJson(config)));
}

TEST(ImageConfig, MalformedDocumentsAreErrors) {
  for (
      const char* text :
      {"", "null", "[]", "{}", R"({"rootfs":{}})", R"({"rootfs":{"type":"x"}})",
       R"({"rootfs":{"type":"layers","diff_ids":["sha256:zz"]}})",
       R"({"rootfs":{"type":"layers","diff_ids":[1]}})",
       R"({"rootfs":{"type":"layers"},"config":{"Env":{"a":1}}})",
       R"({"rootfs":{"type":"layers"},"config":{"ExposedPorts":[]}})",
       R"({"rootfs":{"type":"layers"},"config":{"Labels":{"a":1}}})",
       R"({"rootfs":{"type":"layers"},"config":{"Healthcheck":{"Interval":1.5}}})",
       R"({"rootfs":{"type":"layers"},"config":{"Healthcheck":{"Interval":18446744073709551615}}})",
       R"({"rootfs":{"type":"layers"},"history":{}})",
       R"({"rootfs":{"type":"layers"},"history":[7]})"}) {
    EXPECT_THROW(parseImageConfig(text), Error) << text;
  }
  try {
    parseImageConfig(std::string(kMaxConfigBytes + 1, ' '));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kTooLarge);
  }
}

constexpr const char* kCacheKey =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

// The document with a build cache of these steps, over one layer.
std::string withCache(const std::string& steps) {
  return R"({"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:)" + std::string(64, 'a') +
         R"("]},"hull.build.cache.v1":{"steps":)" + steps + "}}";
}

TEST(ImageConfig, ABuildCacheSurvivesTheWay) {
  const std::string text = withCache(R"([{"key":")" + std::string(kCacheKey) +
                                     R"(","created":"2024-01-02T03:04:05Z","description":"RUN x",
      "layer":0},{"key":")" + std::string(64, 'f') +
                                     R"(","created":"2024-01-02T03:04:05Z"}])");
  const ImageConfig config = parseImageConfig(toJson(parseImageConfig(text)));
  ASSERT_EQ(config.build_cache.size(), 2u);
  EXPECT_EQ(config.build_cache[0].key, kCacheKey);
  EXPECT_EQ(config.build_cache[0].description, "RUN x");
  EXPECT_EQ(config.build_cache[0].layer, 0u);
  EXPECT_EQ(config.build_cache[1].layer, std::nullopt);
}

TEST(ImageConfig, AHostileBuildCacheIsRefused) {
  const auto step = [](const std::string& key, const std::string& more) {
    return R"({"key":")" + key + R"(",)" + more + "}";
  };
  const std::string created = R"("created":"2024-01-02T03:04:05Z")";
  const std::string good = step(kCacheKey, created);
  std::string many = "[" + good;
  for (size_t i = 0; i < kMaxCacheSteps; ++i) many += "," + good;
  for (const std::string& steps :
       {std::string("{}"), std::string("[1]"), std::string("[{}]"), many + "]",
        "[" + step("abc", created) + "]", "[" + step(std::string(64, 'G'), created) + "]",
        "[" + step(kCacheKey, R"("created":"")") + "]",
        "[" + step(kCacheKey, R"("created":"2024\u0000")") + "]",
        "[" + step(kCacheKey, R"("created":")" + std::string(41, '1') + R"(")") + "]",
        "[" + step(kCacheKey, created + R"(,"layer":1)") + "]",
        "[" + step(kCacheKey, created + R"(,"layer":-1)") + "]",
        "[" + step(kCacheKey, created + R"(,"layer":"0")") + "]",
        "[" + step(kCacheKey, created + R"(,"description":")" + std::string(1025, 'x') + R"(")") +
            "]"}) {
    EXPECT_THROW(parseImageConfig(withCache(steps)), Error) << steps.substr(0, 200);
  }
}

}  // namespace
}  // namespace hull::image
