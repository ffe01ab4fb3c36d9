#include "registry/server/configuration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::registry {
namespace {

using ::testing::HasSubstr;

TEST(Configuration, EverythingAtOnce) {
  ServerOptions options;
  options.policy.read_only = true;
  applyConfiguration(R"({
    // comments are fine
    "listen": "0.0.0.0:443", "metrics_listen": "127.0.0.1:5001", "root": "/srv/r",
    "tls": {"certificate": "c.pem", "key": "k.pem"},
    "access_log": "-",
    "access": {"htpasswd": "users", "anonymous_pull": true, "token": {},
               "rules": [{"repository": "team/**", "users": ["ann", "*"], "actions": ["pull", "push", "delete"]}]},
    "read_only": false, "allow_delete": false,
    "immutable_tags": ["prod/**:v*"],
    "quotas": [{"repository": "team/**", "bytes": "10GiB"}],
    "collection": {"interval": "1h", "grace": 60, "untagged": true,
                   "retention": [{"repository": "ci/*", "tag": "pr-*", "keep": ["pr-main"], "keep_newest": 5, "keep_younger": "30d"}]},
    "webhooks": [{"url": "https://hook.example/x", "repository": "team/*", "events": ["push"], "secret": "s"}],
    "cache": {"upstream": "docker.io", "username": "u", "password": "p", "revalidate": "5m"},
    "limits": {"connections": 100, "blob_bytes": "1GB", "requests_per_second": 50}
  })",
                     options);
  EXPECT_EQ(options.listen, "0.0.0.0:443");
  EXPECT_EQ(options.tls_key, "k.pem");
  const Policy& policy = options.policy;
  EXPECT_FALSE(policy.read_only);
  EXPECT_TRUE(policy.access.tokens);
  EXPECT_TRUE(policy.access.anonymous_pull);
  ASSERT_EQ(policy.access.rules.size(), 1u);
  EXPECT_TRUE(policy.access.rules[0].remove);
  EXPECT_EQ(policy.quotas.at(0).bytes, uint64_t{10} << 30);
  EXPECT_EQ(policy.collection.interval, std::chrono::hours(1));
  EXPECT_EQ(policy.collection.grace, std::chrono::seconds(60));
  EXPECT_EQ(policy.collection.retention.at(0).keep_younger, std::chrono::hours(24 * 30));
  EXPECT_EQ(policy.webhooks.at(0).events, std::vector<std::string>{"push"});
  EXPECT_EQ(policy.max_blob_bytes, 1000000000u);
  EXPECT_EQ(options.cache.revalidate, std::chrono::minutes(5));
  EXPECT_EQ(options.connections, 100u);
}

TEST(Configuration, MistakesAreNamed) {
  const auto error_of = [](const std::string& text) -> std::string {
    ServerOptions options;
    try {
      applyConfiguration(text, options);
      return "none";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.what();
    }
  };
  EXPECT_EQ(error_of("{}"), "none");
  EXPECT_THAT(error_of("{"), HasSubstr("not JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(error_of(R"({"listn": 1})"), HasSubstr("listn: unknown key (there are: access"));
  EXPECT_THAT(error_of(R"({"listen": 1})"), HasSubstr("listen: expected text"));
  EXPECT_THAT(error_of(R"({"read_only": "yes"})"), HasSubstr("read_only: expected true or false"));
  EXPECT_THAT(error_of(R"({"quotas": [{"repository": "a", "bytes": "10 GB"}]})"),
              HasSubstr("quotas[0].bytes: \"10 GB\" is no size"));
  EXPECT_THAT(
      error_of(
          R"({"access": {"rules": [{"repository": "a", "users": ["x"], "actions": ["write"]}]}})"),
      HasSubstr("access.rules[0].actions: \"write\" is none of"));
  EXPECT_THAT(error_of(R"({"access": {"rules": [{"users": ["x"]}]}})"),
              HasSubstr("access.rules[0]: repository is missing"));
  EXPECT_THAT(error_of(R"({"access": {"token": {"realm": "https://a"}}})"),
              HasSubstr("keys is missing"));
  EXPECT_THAT(error_of(R"({"collection": {"retention": [{"repository": "a"}]}})"),
              HasSubstr("every tag would go"));
  EXPECT_THAT(error_of(R"({"immutable_tags": ["v1"]})"), HasSubstr("repository:tag"));
  EXPECT_THAT(error_of(R"({"webhooks": [{"url": "ftp://x"}]})"), HasSubstr("webhooks[0].url"));
  EXPECT_THAT(error_of(R"({"collection": {"interval": "1 day"}})"), HasSubstr("is no time"));
  EXPECT_THAT(error_of(R"({"limits": {"connections": 0}})"), HasSubstr("at least 1"));
  EXPECT_THAT(error_of(R"({"limits": {"connections": -1}})"), HasSubstr("whole number"));
}

TEST(Configuration, SizesAndTimesDoNotOverflow) {
  EXPECT_THROW(parseBytes("99999999999TiB", "x"), Error);
  EXPECT_THROW(parseBytes("", "x"), Error);
  EXPECT_THROW(parseBytes("-1", "x"), Error);
  EXPECT_THROW(parseDuration("99999999999999w", "x"), Error);
  EXPECT_EQ(parseBytes("1536", "x"), 1536u);
  EXPECT_EQ(parseDuration("2w", "x"), std::chrono::hours(24 * 14));
}

}  // namespace
}  // namespace hull::registry
