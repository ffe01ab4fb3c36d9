#include "image/build/dockerfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hull::build {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string failure(std::string_view text) {
  try {
    parseDockerfile("Dockerfile", text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> texts(std::string_view text) {
  std::vector<std::string> result;
  for (const auto& instruction : parseDockerfile("Dockerfile", text).instructions)
    result.push_back(instruction.text);
  return result;
}

TEST(Dockerfile, BomIsStrippedAndKeywordsMayBeInAnyCase) {
  EXPECT_THAT(texts("\xef\xbb\xbf"
                    "from scratch\r\nrun x\r\n"),
              ElementsAre("FROM scratch", "RUN x"));
}

TEST(Dockerfile, DirectivesOnlyAtTheTopAndOnlyOnce) {
  EXPECT_EQ(parseDockerfile("D", "# Escape = `\nFROM x\n").escape, '`');
  EXPECT_EQ(parseDockerfile("D", "# comment\n# escape=`\nFROM x\n").escape, '\\');
  EXPECT_EQ(parseDockerfile("D", "#syntax=docker/dockerfile:1\nFROM x\n").syntax,
            "docker/dockerfile:1");
  EXPECT_THAT(failure("#escape=`\n#escape=`\nFROM x\n"),
              HasSubstr("Dockerfile:2:1: only one escape"));
  EXPECT_THAT(failure("#escape=x\nFROM x\n"), HasSubstr("invalid escape"));
}

TEST(Dockerfile, ContinuationsDropCommentsAndKeepLeadingBlanks) {
  const auto file = parseDockerfile("D", "FROM x\nRUN a \\  \n# no\n  b \\\n\n  c\n");
  ASSERT_EQ(file.instructions.size(), 2u);
  EXPECT_EQ(file.instructions[1].rest, "a   b   c");
  ASSERT_EQ(file.warnings.size(), 1u);
  EXPECT_EQ(file.warnings[0].line, 5);
}

TEST(Dockerfile, AnEscapedEscapeDoesNotContinue) {
  EXPECT_THAT(texts("FROM x\nRUN a\\\\\nRUN b\n"), ElementsAre("FROM x", "RUN a\\\\", "RUN b"));
}

TEST(Dockerfile, ExecFormIsJsonAndBrokenJsonIsAString) {
  const auto file = parseDockerfile("D", "FROM x\nCMD [\"a\", \"b c\"]\nCMD [a]\nENTRYPOINT []\n");
  EXPECT_THAT(*file.instructions[1].exec, ElementsAre("a", "b c"));
  EXPECT_FALSE(file.instructions[2].exec);
  EXPECT_TRUE(file.instructions[3].exec->empty());
  EXPECT_THAT(failure("FROM x\nCMD [1]\n"), HasSubstr("not a string"));
}

TEST(Dockerfile, FlagsAreSplitOffWithTheirColumns) {
  const auto file = parseDockerfile("D", "FROM x\nCOPY --from=a  --chown=1:2 s d\n");
  const auto& copy = file.instructions[1];
  ASSERT_EQ(copy.flags.size(), 2u);
  EXPECT_EQ(copy.flags[0].name, "from");
  EXPECT_EQ(copy.flags[1].value, "1:2");
  EXPECT_EQ(copy.flags[1].column, 16);
  EXPECT_EQ(copy.rest, "s d");
  EXPECT_EQ(copy.column, 28);
}

TEST(Dockerfile, Heredocs) {
  const auto file = parseDockerfile(
      "D",
      "FROM x\nRUN <<EOF\none\n\ttwo\nEOF\nCOPY <<-'A' <<B /d/\n\tx $y\n\tA\nz\nB\nRUN last\n");
  ASSERT_EQ(file.instructions.size(), 4u);
  EXPECT_EQ(file.instructions[1].heredocs[0].content, "one\n\ttwo\n");
  ASSERT_EQ(file.instructions[2].heredocs.size(), 2u);
  EXPECT_EQ(file.instructions[2].heredocs[0].content, "x $y\n");
  EXPECT_FALSE(file.instructions[2].heredocs[0].expand);
  EXPECT_TRUE(file.instructions[2].heredocs[1].expand);
  EXPECT_EQ(file.instructions[3].line, 11);
  EXPECT_THAT(failure("FROM x\nRUN <<EOF\na\n"), HasSubstr("Dockerfile:2:1: unterminated heredoc"));
}

TEST(Dockerfile, AShellRedirectionIsNoHeredocWithoutAName) {
  EXPECT_THAT(texts("FROM x\nRUN echo \"<<EOF\" $((1<<2))\n"),
              ElementsAre("FROM x", "RUN echo \"<<EOF\" $((1<<2))"));
}

TEST(Dockerfile, ErrorsPointAtFileLineAndColumn) {
  EXPECT_EQ(
      failure("FROM x\n  RNU true\n"),
      "Dockerfile:2:3: unknown instruction: RNU (did you mean RUN?)\n  2 |   RNU true\n    |   ^");
  EXPECT_THAT(failure("FROM\n"), HasSubstr("Dockerfile:1:1: FROM requires at least one argument"));
  EXPECT_THAT(failure("\n# only a comment\n"), HasSubstr("no instruction"));
}

TEST(Dockerfile, BoundsAreEnforced) {
  EXPECT_THAT(failure("FROM x\nRUN " + std::string(70'000, 'a')), HasSubstr("65535"));
  std::string many;
  for (size_t i = 0; i <= kMaxInstructions; ++i) many += "RUN x\n";
  EXPECT_THAT(failure(many), HasSubstr("too many instructions"));
  EXPECT_THAT(failure(std::string(kMaxDockerfileBytes + 1, '\n')), HasSubstr("larger than"));
  EXPECT_THAT(failure(std::string_view("FROM x\0y\n", 9)), HasSubstr("NUL"));
}

}  // namespace
}  // namespace hull::build
