#include "registry/http/challenge.h"

#include <gtest/gtest.h>

namespace hull::registry {
namespace {

TEST(Challenge, DockerHub) {
  const auto found = parseChallenges(
      "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\","
      "scope=\"repository:library/debian:pull,push\"");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].scheme, "bearer");
  EXPECT_EQ(found[0].parameter("realm"), "https://auth.docker.io/token");
  EXPECT_EQ(found[0].parameter("service"), "registry.docker.io");
  EXPECT_EQ(found[0].parameter("scope"), "repository:library/debian:pull,push");
  EXPECT_EQ(found[0].parameter("error"), "");
}

TEST(Challenge, SeveralInOneHeader) {
  const auto found = parseChallenges(
      "Negotiate YWJj==, BASIC realm=\"a \\\"b\\\", c\" , charset=UTF-8,Bearer Realm = x, "
      "scope=\"\"");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].scheme, "negotiate");
  EXPECT_TRUE(found[0].parameters.empty());
  EXPECT_EQ(found[1].scheme, "basic");
  EXPECT_EQ(found[1].parameter("realm"), "a \"b\", c");
  EXPECT_EQ(found[1].parameter("charset"), "UTF-8");
  EXPECT_EQ(found[2].scheme, "bearer");
  EXPECT_EQ(found[2].parameter("realm"), "x");
}

TEST(Challenge, SchemesWithoutParameters) {
  const auto found = parseChallenges("Negotiate, NTLM");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].scheme, "negotiate");
  EXPECT_EQ(found[1].scheme, "ntlm");
}

TEST(Challenge, HostileInputIsBounded) {
  EXPECT_TRUE(parseChallenges("").empty());
  EXPECT_TRUE(parseChallenges(" ,, \t,").empty());
  EXPECT_TRUE(parseChallenges(std::string(kMaxChallengeBytes + 1, 'a')).empty());
  EXPECT_TRUE(parseChallenges("\"Bearer realm=x\"").empty());

  const auto unclosed = parseChallenges("Bearer realm=\"http://x, service=\"y\\");
  ASSERT_EQ(unclosed.size(), 1u);
  EXPECT_EQ(unclosed[0].parameter("service"), "");

  std::string many;
  for (int i = 0; i < 1000; ++i) many += "S" + std::to_string(i) + ",";
  EXPECT_EQ(parseChallenges(many).size(), kMaxChallenges);

  std::string parameters = "Bearer ";
  for (int i = 0; i < 1000; ++i) parameters += "p" + std::to_string(i) + "=v,";
  const auto found = parseChallenges(parameters);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].parameters.size(), kMaxChallengeParameters);

  // A repeated name does not replace what came first.
  EXPECT_EQ(parseChallenges("Bearer realm=a,realm=b")[0].parameter("realm"), "a");
}

}  // namespace
}  // namespace hull::registry
