#include "image/build/dockerignore.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::build {
namespace {

TEST(IgnoreRules, PlainNamesMatchAtTheRootOnlyAndTheirChildren) {
  const auto rules = IgnoreRules::parse("node_modules\n/build/\n./tmp\n");
  EXPECT_TRUE(rules.excludes("node_modules"));
  EXPECT_TRUE(rules.excludes("node_modules/a/b.js"));
  EXPECT_TRUE(rules.excludes("build/x"));
  EXPECT_TRUE(rules.excludes("tmp"));
  EXPECT_FALSE(rules.excludes("src/node_modules"));
}

TEST(IgnoreRules, DoubleStarSpansFolders) {
  const auto rules = IgnoreRules::parse("**/*.o\ndocs/**/draft\n");
  EXPECT_TRUE(rules.excludes("a.o"));
  EXPECT_TRUE(rules.excludes("x/y/a.o"));
  EXPECT_TRUE(rules.excludes("docs/draft"));
  EXPECT_TRUE(rules.excludes("docs/a/b/draft"));
  EXPECT_FALSE(rules.excludes("docs/a/b/final"));
}

TEST(IgnoreRules, StarDoesNotCrossASlash) {
  const auto rules = IgnoreRules::parse("*/temp*\n");
  EXPECT_TRUE(rules.excludes("a/temp1"));
  EXPECT_FALSE(rules.excludes("a/b/temp1"));
}

TEST(IgnoreRules, TheLastMatchWins) {
  const auto rules = IgnoreRules::parse("*.md\n!README.md\nREADME-secret.md\n");
  EXPECT_TRUE(rules.excludes("a.md"));
  EXPECT_FALSE(rules.excludes("README.md"));
  EXPECT_TRUE(rules.excludes("README-secret.md"));
  const auto again = IgnoreRules::parse("!README.md\n*.md\n");
  EXPECT_TRUE(again.excludes("README.md"));
}

TEST(IgnoreRules, AnExceptionReachesIntoAnExcludedFolder) {
  const auto rules = IgnoreRules::parse("vendor\n!vendor/keep\n");
  EXPECT_TRUE(rules.excludes("vendor/x"));
  EXPECT_FALSE(rules.excludes("vendor/keep"));
  EXPECT_FALSE(rules.excludes("vendor/keep/deep"));
  EXPECT_FALSE(rules.prunes("vendor"));
}

TEST(IgnoreRules, WithoutExceptionsAnExcludedFolderIsPruned) {
  EXPECT_TRUE(IgnoreRules::parse("vendor\n").prunes("vendor"));
}

TEST(IgnoreRules, CommentsOnlyInColumnZeroAndBlanksAreTrimmed) {
  const auto rules = IgnoreRules::parse("# no\n  #yes  \n\n  spaced  \r\n");
  EXPECT_FALSE(rules.excludes("# no"));
  EXPECT_TRUE(rules.excludes("#yes"));
  EXPECT_TRUE(rules.excludes("spaced"));
}

TEST(IgnoreRules, ClassesAndEscapes) {
  const auto rules = IgnoreRules::parse("[a-c]x\n[^0-9]y\n\\*z\n");
  EXPECT_TRUE(rules.excludes("bx"));
  EXPECT_FALSE(rules.excludes("dx"));
  EXPECT_TRUE(rules.excludes("ay"));
  EXPECT_FALSE(rules.excludes("1y"));
  EXPECT_TRUE(rules.excludes("*z"));
  EXPECT_FALSE(rules.excludes("az"));
}

TEST(IgnoreRules, ManyStarsStayQuick) {
  std::string pattern, path;
  for (int i = 0; i < 200; ++i) pattern += "**/*a*a*a*/";
  for (int i = 0; i < 300; ++i) path += "aaaaaaaaaaab/";
  EXPECT_FALSE(IgnoreRules::parse(pattern + "x").excludes(path));
}

TEST(IgnoreRules, BadInputNamesItsLine) {
  try {
    IgnoreRules::parse("ok\n!\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with(".dockerignore:2:")) << error.what();
  }
}

}  // namespace
}  // namespace hull::build
