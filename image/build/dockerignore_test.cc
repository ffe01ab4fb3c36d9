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

TEST(IgnoreRules, OnlyFoldersThatAnExceptionReachesIntoAreWalked) {
  const auto named = IgnoreRules::parse("*\n!src/keep\n!docs\n!*.md\n!lib?/*/x\n");
  EXPECT_FALSE(named.prunes("src"));
  EXPECT_FALSE(named.prunes("lib1"));
  EXPECT_FALSE(named.prunes("lib1/any"));
  EXPECT_FALSE(named.prunes("docs"));  // not ignored at all
  for (const char* folder : {"node_modules", "src/other", "src/other/keep", "lib", "lib1/any/y"})
    EXPECT_TRUE(named.prunes(folder)) << folder;
  const auto anywhere = IgnoreRules::parse("vendor\ntmp\n!vendor/**/*.go\n");
  EXPECT_FALSE(anywhere.prunes("vendor/a/b/c"));
  EXPECT_TRUE(anywhere.prunes("tmp"));
  EXPECT_FALSE(IgnoreRules::parse("tmp\n!**/keep\n").prunes("tmp/a/b"));
  const auto again = IgnoreRules::parse("!c\nc/d\n");
  EXPECT_TRUE(again.prunes("c/d"));
  EXPECT_TRUE(again.excludes("c/d/x"));
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

std::string failure(const std::string& text, const std::string& file) {
  try {
    IgnoreRules::parse(text, file);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(IgnoreRules, BadInputNamesItsLine) {
  EXPECT_TRUE(failure("ok\n!\n", ".dockerignore").starts_with(".dockerignore:2: '!'"));
}

TEST(IgnoreRules, BadPatternsNameTheirFileAndLine) {
  for (const char* bad : {"a[", "[", "[^", "[]", "[]a]", "[a-]", "[-a]", "x/[ab", "[a\\]", "a\\"}) {
    for (const char* exception : {"", "! "}) {
      const std::string problem =
          failure("ok\n\n" + std::string(exception) + bad + "\n", "web.dockerignore");
      EXPECT_TRUE(problem.starts_with("web.dockerignore:3: syntax error in pattern \"" +
                                      std::string(bad) + "\""))
          << bad << ": " << problem;
    }
  }
  for (const char* good :
       {"]", "[a]", "[^a-z]", "[\\]]", "[a\\-]", "\\[", "\\\\[a]", "[[]", "a*[*]"})
    EXPECT_EQ(failure(good, "web.dockerignore"), "") << good;
}

}  // namespace
}  // namespace hull::build
