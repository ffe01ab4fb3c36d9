#include "image/build/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace hull::build {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::optional<std::string> variables(std::string_view name) {
  static const std::map<std::string, std::string, std::less<>> values = {
      {"foo", "bar"}, {"empty", ""}, {"path", "/a/b/c.tar.gz"}, {"nested", "$foo"}};
  const auto found = values.find(name);
  return found == values.end() ? std::nullopt : std::optional(found->second);
}

std::string expand(std::string_view text) {
  return expandWord(text, '\\', variables);
}

std::string failure(std::string_view text) {
  try {
    expand(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Words, QuotesAndEscapes) {
  EXPECT_EQ(expand("$foo ${foo} $"), "bar bar $");
  EXPECT_EQ(expand("'$foo'"), "$foo");
  EXPECT_EQ(expand("\"$foo '$foo'\""), "bar 'bar'");
  EXPECT_EQ(expand("\\$foo \"\\$foo\""), "$foo $foo");
  EXPECT_EQ(expand("$unset|$empty|"), "||");
  EXPECT_EQ(expand("$nested"), "$foo");  // values are not expanded again
}

TEST(Words, Modifiers) {
  EXPECT_EQ(expand("${unset:-x} ${empty:-x} ${empty-x} ${foo:-x}"), "x x  bar");
  EXPECT_EQ(expand("${unset:+x}|${empty:+x}|${empty+x}|${foo:+x}"), "||x|x");
  EXPECT_EQ(expand("${unset:-${foo:-z}}"), "bar");
  EXPECT_EQ(expand("${path#*/}|${path##*/}|${path%.*}|${path%%.*}"),
            "a/b/c.tar.gz|c.tar.gz|/a/b/c.tar|/a/b/c");
  EXPECT_EQ(expand("${path/a/X}|${path//\\//-}|${path/.*/}"), "/X/b/c.tar.gz|-a-b-c.tar.gz|/a/b/c");
  EXPECT_EQ(failure("${unset:?is needed}"), "unset: is needed");
  EXPECT_EQ(expand("${foo:?is needed}"), "bar");
}

TEST(Words, WhatIsNotUnderstoodIsAnError) {
  EXPECT_NE(failure("${foo"), "");
  EXPECT_NE(failure("${}"), "");
  EXPECT_NE(failure("${foo:#x}"), "");
  EXPECT_NE(failure("${foo:%x}"), "");
  EXPECT_NE(failure("${foo!}"), "");
  EXPECT_NE(failure("'open"), "");
  EXPECT_NE(failure("\"open"), "");
}

TEST(Words, DeepNestingAndGrowthAreBounded) {
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "${unset:-";
  deep += "x" + std::string(1000, '}');
  EXPECT_NE(failure(deep), "");
  std::string wide;
  for (int i = 0; i < 100'000; ++i) wide += "${path}";
  EXPECT_EQ(expand(wide.substr(0, 7)).size(), 13u);
  const auto big = [](std::string_view) { return std::optional(std::string(1 << 20, 'x')); };
  EXPECT_THROW(expandWord("$a$a$a$a$a", '\\', big), Error);
}

TEST(Words, HereDocumentTextKeepsItsQuotes) {
  EXPECT_EQ(expandText("'$foo' \"$foo\" \\$foo \\n", '\\', variables), "'bar' \"bar\" $foo \\n");
}

TEST(Words, SplitRespectsQuotes) {
  EXPECT_THAT(splitWords("a 'b c'  \"d e\"f g\\ h", '\\'),
              ElementsAre("a", "'b c'", "\"d e\"f", "g\\ h"));
}

TEST(Words, PairsAndTheOldForm) {
  EXPECT_THAT(splitPairs("ONE TWO= THREE=x", '\\', true), ElementsAre(Pair("ONE", "TWO= THREE=x")));
  EXPECT_THAT(splitPairs("a=1 b='2 3'", '\\', true),
              ElementsAre(Pair("a", "1"), Pair("b", "'2 3'")));
  EXPECT_THROW(splitPairs("a=1 b", '\\', true), Error);
  EXPECT_THROW(splitPairs("alone", '\\', true), Error);
  EXPECT_THROW(splitPairs("=x", '\\', true), Error);
}

}  // namespace
}  // namespace hull::build
