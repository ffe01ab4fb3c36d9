#include "image/build/lint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hull::build {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> found(const std::string& text, const std::string& ignored = "") {
  const Dockerfile file = parseDockerfile("Dockerfile", text);
  const StagePlan plan = planStages(file, {}, "");
  const IgnoreRules rules = IgnoreRules::parse(ignored);
  LintContext context;
  context.ignored = &rules;
  context.variables = [](const std::string& image) -> std::optional<std::vector<std::string>> {
    if (image == "known") return std::vector<std::string>{"FROM_BASE"};
    return std::nullopt;
  };
  std::vector<std::string> result;
  for (const auto& warning : lint(file, plan, context))
    result.push_back(warning.rule + ":" + std::to_string(warning.line) + " " + warning.message);
  return result;
}

TEST(Lint, ACleanFileHasNoWarnings) {
  EXPECT_THAT(
      found("ARG TAG=1\nFROM known:$TAG AS base\nARG A\nENV B=$A C=${FROM_BASE:-x}\nWORKDIR "
            "/w\nWORKDIR sub\nRUN echo $shell\nCMD [\"x\"]\nFROM base\nCOPY a /a\n"),
      IsEmpty());
}

TEST(Lint, Names) {
  EXPECT_THAT(found("FROM scratch AS Big\n"),
              ElementsAre("StageNameCasing:1 Stage name 'Big' should be lowercase"));
  EXPECT_THAT(found("FROM scratch as x\n"),
              ElementsAre("FromAsCasing:1 'as' and 'FROM' keywords' casing do not match"));
  EXPECT_THAT(
      found("FROM scratch AS a\nFROM scratch AS a\n"),
      ElementsAre("DuplicateStageName:2 Duplicate stage name 'a', stage names should be unique"));
  EXPECT_THAT(found("FROM scratch AS context\n"),
              ElementsAre("ReservedStageName:1 Stage name should not use the same name as reserved "
                          "stage \"context\""));
  EXPECT_THAT(found("FROM scratch\nrun x\nRun y\n"),
              ElementsAre("ConsistentInstructionCasing:2 Command 'run' should match the case of "
                          "the command majority (uppercase)",
                          "ConsistentInstructionCasing:3 Command 'Run' should match the case of "
                          "the command majority (uppercase)"));
}

TEST(Lint, Variables) {
  EXPECT_THAT(found("FROM scratch\nARG NAME\nCOPY $NAEM /x\n"),
              ElementsAre("UndefinedVar:3 Usage of undefined variable '$NAEM' (did you mean "
                          "$NAME?)"));
  EXPECT_THAT(found("FROM known\nENV A=$FROM_BASE$OTHER\n"),
              ElementsAre("UndefinedVar:2 Usage of undefined variable '$OTHER'"));
  EXPECT_THAT(found("FROM unknown\nENV A=$OTHER\n"), IsEmpty());  // it may define that
  EXPECT_THAT(found("FROM scratch\nENV A='$x' B=\\$x C=${x:-1}\n"), IsEmpty());
  EXPECT_THAT(found("ARG TAG=1\nFROM known:${TGA:-1}$TGA\n"),
              ElementsAre("UndefinedArgInFrom:2 FROM argument 'TGA' is not declared (did you mean "
                          "TAG?)"));
  EXPECT_THAT(found("ARG TAG\nFROM known:$TAG\n"),
              ElementsAre("InvalidDefaultArgInFrom:2 Default value for ARG known:$TAG results in "
                          "empty or invalid base image name"));
}

TEST(Lint, Secrets) {
  EXPECT_THAT(
      found("FROM scratch\nARG API_TOKEN\nENV PUBLIC_KEY=1 MONKEY=2 TOKEN_FILE=/x\n"),
      ElementsAre("SecretsUsedInArgOrEnv:2 Do not use ARG or ENV instructions for sensitive "
                  "data (ARG \"API_TOKEN\")"));
}

TEST(Lint, Forms) {
  EXPECT_THAT(found("FROM scratch\nCMD x\nCMD [\"y\"]\n"),
              ElementsAre("JSONArgsRequired:2 JSON arguments recommended for CMD to prevent "
                          "unintended behavior related to OS signals",
                          "MultipleInstructionsDisallowed:3 Multiple CMD instructions should not "
                          "be used in the same stage because only the last one will be used"));
  EXPECT_THAT(found("FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\n"), IsEmpty());
  EXPECT_THAT(found("FROM scratch\nENV a b\n"),
              ElementsAre("LegacyKeyValueFormat:2 \"ENV key=value\" should be used instead of "
                          "legacy \"ENV key value\" format"));
  EXPECT_THAT(found("FROM scratch\nMAINTAINER me\n"),
              ElementsAre("MaintainerDeprecated:2 Maintainer instruction is deprecated in favor "
                          "of using label"));
  EXPECT_THAT(found("FROM scratch\nWORKDIR app\nWORKDIR sub\n"),
              ElementsAre("WorkdirRelativePath:2 Relative workdir \"app\" can have unexpected "
                          "results if the base image changes"));
  EXPECT_THAT(found("FROM scratch\nEXPOSE 80/TCP\nEXPOSE 127.0.0.1:80:80\n"),
              ElementsAre("ExposeProtoCasing:2 Defined protocol 'TCP' in EXPOSE instruction should "
                          "be lowercase",
                          "ExposeInvalidFormat:3 EXPOSE instruction should not define an IP "
                          "address or host-port mapping, found '127.0.0.1:80:80'"));
  EXPECT_THAT(found("FROM scratch\nRUN a \\\n\n b\n"),
              ElementsAre("NoEmptyContinuation:3 Empty continuation line"));
}

TEST(Lint, Platforms) {
  EXPECT_THAT(found("FROM --platform=$TARGETPLATFORM scratch\n"),
              ElementsAre("RedundantTargetPlatform:1 Setting platform to predefined "
                          "$TARGETPLATFORM in FROM is redundant as this is the default behavior"));
  EXPECT_THAT(found("FROM --platform=linux/amd64 scratch\n"),
              ElementsAre("FromPlatformFlagConstDisallowed:1 FROM --platform flag should not use "
                          "constant value \"linux/amd64\""));
  EXPECT_THAT(found("FROM --platform=linux/amd64 scratch AS build_amd64\n"), IsEmpty());
}

TEST(Lint, IgnoredFilesAndDescriptions) {
  EXPECT_THAT(found("FROM scratch\nCOPY a/b /x\nCOPY --from=0x a /y\n", "a\n"),
              ElementsAre("CopyIgnoredFile:2 Attempting to Copy file \"a/b\" that is excluded by "
                          ".dockerignore"));
  EXPECT_THAT(found("# check=experimental=InvalidDefinitionDescription\n# what it is\nARG A=1\n# B "
                    "is fine\nARG B=1\nFROM scratch\n")
                  .size(),
              1u);
}

TEST(Lint, DirectivesSkipRules) {
  EXPECT_THAT(found("# check=skip=stagenamecasing\nFROM scratch AS Big\n"), IsEmpty());
  EXPECT_THAT(found("# check=skip=all\nFROM scratch AS Big\nCMD x\n"), IsEmpty());
  EXPECT_EQ(ruleAddress("JSONArgsRequired"),
            "https://docs.docker.com/go/dockerfile/rule/json-args-required/");
}

}  // namespace
}  // namespace hull::build
